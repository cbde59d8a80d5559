//! The program from outside: usage errors, exit codes, JSON, colours, keys, refused proofs. No network, no chain.

use serde_json::Value;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Output, Stdio};

fn fluence(home: &Path, args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_fluence"))
        .args(args)
        .env_clear()
        .env("FLUENCE_HOME", home)
        .env("PATH", std::env::var_os("PATH").unwrap_or_default())
        .stdin(Stdio::null())
        .output()
        .expect("the program under test starts")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).expect("output is text")
}

fn code(output: &Output) -> i32 {
    output.status.code().expect("it was not killed")
}

fn secret_file(path: &Path, text: &str) -> String {
    std::fs::write(path, text).unwrap();
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).unwrap();
    path.to_str().unwrap().to_owned()
}

#[test]
fn every_command_has_help_with_examples_and_exit_code_0() {
    let home = tempfile::tempdir().unwrap();
    let top = fluence(home.path(), &["--help"]);
    assert_eq!(code(&top), 0);
    for command in [
        "demo",
        "init",
        "import",
        "query",
        "export",
        "verify-export",
        "table",
        "cluster",
        "up",
        "node",
        "arbiter",
        "verify",
        "keys",
        "proofs",
        "ceremony",
        "doctor",
    ] {
        assert!(text(&top.stdout).contains(&format!("\n  {command}")), "{command} is not listed");
    }
    assert!(text(&top.stdout).contains("Exit codes:"));
    assert!(!text(&top.stdout).contains("demo-liar"), "a test-only command is listed");
    let pages: [&[&str]; 39] = [
        &["demo"],
        &["init"],
        &["import"],
        &["query"],
        &["export"],
        &["verify-export"],
        &["table", "ls"],
        &["table", "stats"],
        &["table", "compact"],
        &["node"],
        &["arbiter"],
        &["verify"],
        &["doctor"],
        &["keys", "new"],
        &["keys", "backup"],
        &["keys", "restore"],
        &["proofs", "ls"],
        &["proofs", "show"],
        &["proofs", "export"],
        &["up"],
        &["cluster", "create"],
        &["cluster", "status"],
        &["cluster", "members"],
        &["cluster", "join"],
        &["cluster", "leave"],
        &["cluster", "replace"],
        &["cluster", "standby"],
        &["cluster", "cancel"],
        &["ceremony", "phase1", "new"],
        &["ceremony", "phase1", "contribute"],
        &["ceremony", "phase1", "verify"],
        &["ceremony", "import"],
        &["ceremony", "new"],
        &["ceremony", "contribute"],
        &["ceremony", "beacon"],
        &["ceremony", "verify"],
        &["ceremony", "finalize"],
        &["ceremony", "status"],
        &["ceremony", "matrices"],
    ];
    for page in pages {
        let help = fluence(home.path(), &[page, &["--help"]].concat());
        assert_eq!(code(&help), 0, "{page:?}");
        assert!(text(&help.stdout).contains("Examples:"), "{page:?} has no examples");
    }
}

#[test]
fn the_reference_page_is_what_the_program_says() {
    let home = tempfile::tempdir().unwrap();
    let page = text(&fluence(home.path(), &["markdown-help"]).stdout);
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/cli.md");
    let kept = std::fs::read_to_string(path).unwrap_or_default();
    assert!(page.contains("## `fluence query`") && !page.contains(home.path().to_str().unwrap()));
    assert!(page == kept, "docs/cli.md is stale; run: fluence markdown-help > docs/cli.md");
}

#[test]
fn wrong_usage_is_exit_code_2_and_says_so() {
    let home = tempfile::tempdir().unwrap();
    for args in [
        &["--frobnicate"][..],
        &["import"],
        &["import", "x.csv"],
        &["import", "x.csv", "--table", "t", "--segment-rows", "1"],
        &["import", "x.csv", "--table", "t", "--format", "xls"],
        &["export", "t"],
        &["verify-export"],
        &["verify-export", "f", "--recompute", "--committee", "0x00"],
        &["table", "stats"],
        &["query"],
        &["query", "t", "--prove"],
        &["query", "t", "--agg", "count", "--select", "a"],
        &["verify", "p.json", "--rpc", "http://x"],
        &["verify", "p.json", "--vkey", "k", "--rpc", "http://x", "--contract", "0x1"],
        &["demo", "--damage", "everything"],
        &["keys", "new", "--passphrase", "secret"],
        &["cluster", "create", "main"],
        &["cluster", "join"],
        &["cluster", "replace", "--out", "x"],
        &["cluster", "standby", "--clear", ADDRESS],
        &["cluster", "leave", "x", "--timeout", "0"],
        &["up", "-n", "0"],
        &["up", "-n", "32"],
    ] {
        let output = fluence(home.path(), args);
        assert_eq!(code(&output), 2, "{args:?}: {}", text(&output.stderr));
        assert!(!output.stderr.is_empty() && output.stdout.is_empty(), "{args:?}");
    }
}

#[test]
fn errors_are_json_under_json_and_name_the_next_step() {
    let home = tempfile::tempdir().unwrap();
    for args in [
        &["verify", "nowhere.json", "--json"][..],
        &["query", "t", "--json"],
        &["query", "--json"],
        &["cluster", "status", "--json"],
        &["cluster", "create", "main", "--node", "nowhere", "--json"],
        &["cluster", "standby", "--json"],
    ] {
        let output = fluence(home.path(), args);
        assert_ne!(code(&output), 0);
        let error: Value = serde_json::from_slice(&output.stderr)
            .unwrap_or_else(|e| panic!("{args:?}: {e}: {}", text(&output.stderr)));
        assert_eq!(error["exit_code"].as_i64(), Some(i64::from(code(&output))), "{args:?}");
        assert!(
            error["error"].as_str().is_some_and(|e| !e.is_empty()) && error["help"].is_string(),
            "{args:?}: {error}"
        );
        assert!(output.stdout.is_empty(), "{args:?}");
    }
    let plain = fluence(home.path(), &["verify", "nowhere.json"]);
    assert!(text(&plain.stderr).contains("help:"), "{}", text(&plain.stderr));
}

#[test]
fn results_are_one_json_value_under_json() {
    let home = tempfile::tempdir().unwrap();
    let passphrase = secret_file(&home.path().join("pass"), "correct horse battery\n");
    for args in [
        &["init", "--json", "--passphrase-file", &passphrase, "--node", ADDRESS][..],
        &["proofs", "ls", "--json"],
        &["keys", "backup", "--json", "--passphrase-file", &passphrase],
    ] {
        let output = fluence(home.path(), args);
        assert_eq!(code(&output), 0, "{args:?}: {}", text(&output.stderr));
        serde_json::from_slice::<Value>(&output.stdout).unwrap_or_else(|e| panic!("{args:?}: {e}"));
    }
    // Doctor's exit code depends on the machine; its JSON does not.
    let doctor: Value =
        serde_json::from_slice(&fluence(home.path(), &["doctor", "--json", "--timeout", "1"]).stdout).unwrap();
    let checks = doctor["checks"].as_array().unwrap();
    assert!(checks.iter().any(|c| c["name"] == "keystore" && c["state"] == "ok"), "{doctor}");
}

const ADDRESS: &str = "/ip4/127.0.0.1/tcp/1/p2p/12D3KooWGzxzKZYveHXtpG6AsrUJBcWxHBFS2HsEoGTxrMLvKXtf";

#[test]
fn no_escape_codes_under_no_color_nor_without_a_terminal() {
    let home = tempfile::tempdir().unwrap();
    for args in [&["doctor", "--timeout", "1"][..], &["--help"], &["verify", "nowhere.json"], &["--frobnicate"]] {
        for no_color in ["1", ""] {
            let output = Command::new(env!("CARGO_BIN_EXE_fluence"))
                .args(args)
                .env("NO_COLOR", no_color)
                .env("FLUENCE_HOME", home.path())
                .stdin(Stdio::null())
                .output()
                .unwrap();
            assert!(!output.stdout.contains(&0x1b) && !output.stderr.contains(&0x1b), "{args:?}");
        }
    }
}

#[test]
fn keys_are_made_backed_up_and_restored_to_the_same_owner() {
    let dir = tempfile::tempdir().unwrap();
    let (home, other) = (dir.path().join("home"), dir.path().join("other"));
    let passphrase = secret_file(&dir.path().join("pass"), "correct horse battery\n");
    let phrase_file = dir.path().join("phrase");
    let out = phrase_file.to_str().unwrap();

    let new = fluence(&home, &["keys", "new", "--passphrase-file", &passphrase, "--phrase-out", out, "--json"]);
    assert_eq!(code(&new), 0, "{}", text(&new.stderr));
    let owner = serde_json::from_slice::<Value>(&new.stdout).unwrap()["owner"].clone();
    assert!(owner.is_string());
    let phrase = std::fs::read_to_string(&phrase_file).unwrap();
    assert_eq!(phrase.split_whitespace().count(), 24);
    assert!(!text(&new.stdout).contains(phrase.trim()), "the phrase was printed though a file was named");
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(&phrase_file), mode(&home.join("keystore.age")), mode(&home)), (0o600, 0o600, 0o700));

    let backup = fluence(&home, &["keys", "backup", "--passphrase-file", &passphrase, "--json"]);
    assert_eq!(serde_json::from_slice::<Value>(&backup.stdout).unwrap()["phrase"].as_str(), Some(phrase.trim()));

    let restore =
        fluence(&other, &["keys", "restore", "--phrase-file", out, "--passphrase-file", &passphrase, "--json"]);
    assert_eq!(code(&restore), 0, "{}", text(&restore.stderr));
    assert_eq!(serde_json::from_slice::<Value>(&restore.stdout).unwrap()["owner"], owner);
}

#[test]
fn keys_refuse_to_overwrite_a_wrong_passphrase_a_short_one_and_a_bad_phrase() {
    let dir = tempfile::tempdir().unwrap();
    let home = dir.path().join("home");
    let passphrase = secret_file(&dir.path().join("pass"), "correct horse battery\n");
    let wrong = secret_file(&dir.path().join("wrong"), "incorrect horse battery\n");
    let short = secret_file(&dir.path().join("short"), "horse\n");
    let bad_phrase = secret_file(&dir.path().join("phrase"), &"abandon ".repeat(24));
    let refused = |args: &[&str], want: i32| {
        let output = fluence(&home, args);
        let (stdout, stderr) = (text(&output.stdout), text(&output.stderr));
        assert_eq!(code(&output), want, "{args:?}: {stderr}");
        assert!(stderr.contains("help:"), "{args:?}: {stderr}");
        assert!(!stderr.contains("horse") && !stdout.contains("horse"), "{args:?} shows the passphrase");
    };
    refused(&["keys", "new", "--passphrase-file", &short], 2);
    refused(&["keys", "new"], 2);
    refused(&["keys", "restore", "--phrase-file", &bad_phrase, "--passphrase-file", &passphrase], 1);
    refused(&["keys", "backup", "--passphrase-file", &passphrase], 1);
    assert!(!home.join("keystore.age").exists());
    assert_eq!(code(&fluence(&home, &["keys", "new", "--passphrase-file", &passphrase])), 0);
    let before = std::fs::read(home.join("keystore.age")).unwrap();
    refused(&["keys", "new", "--passphrase-file", &passphrase], 1);
    refused(&["keys", "restore", "--phrase-file", &bad_phrase, "--passphrase-file", &passphrase], 1);
    refused(&["keys", "backup", "--passphrase-file", &wrong], 1);
    assert_eq!(std::fs::read(home.join("keystore.age")).unwrap(), before);
}
