//! `fluence ceremony` from outside: a whole ceremony of a tiny circuit, and what is refused with which exit code.

use serde_json::Value;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Output, Stdio};

/// The holdings root alone: 2^9 rows.
const CIRCUIT: &str = "storage/v2/k0-h0-d1-t1";

fn fluence(dir: &Path, args: &[&str], stdin: &str) -> Output {
    let mut child = Command::new(env!("CARGO_BIN_EXE_fluence"))
        .args(args)
        .arg("--json")
        .current_dir(dir)
        .env_clear()
        .env("FLUENCE_HOME", dir.join("home"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the program under test starts");
    // A command that does not read it may be gone already.
    let _ = child.stdin.take().expect("it is piped").write_all(stdin.as_bytes());
    child.wait_with_output().expect("it ends")
}

fn ok(dir: &Path, args: &[&str], stdin: &str) -> Value {
    let output = fluence(dir, args, stdin);
    assert_eq!(output.status.code(), Some(0), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).expect("one JSON value")
}

/// The exit code and what the error says, causes included.
fn refused(dir: &Path, args: &[&str]) -> (i32, String) {
    let output = fluence(dir, args, "");
    assert!(output.stdout.is_empty());
    (output.status.code().expect("it was not killed"), String::from_utf8(output.stderr).expect("errors are text"))
}

#[test]
fn a_ceremony_is_walked_through_and_liars_are_told_why() {
    let temporary = tempfile::tempdir().unwrap();
    let dir = temporary.path();
    ok(dir, &["ceremony", "phase1", "new", "--power", "9", "--out", "c0"], "");
    let made = ok(dir, &["ceremony", "phase1", "contribute", "c0", "--out", "r0", "--text-file", "-"], "dice: 3 1 4");
    let seen = ok(dir, &["ceremony", "phase1", "verify", "c0", "r0", "--out", "c1"], "");
    assert_eq!(made["response_blake2b"], seen["response_blake2b"]);
    let hash = seen["response_blake2b"].as_str().unwrap();
    let imported = ok(dir, &["ceremony", "import", "r0", "--circuit", CIRCUIT, "--expect", hash, "--out", "p"], "");
    assert_eq!((imported["origin"].as_str(), imported["log2"].as_u64()), (Some("response"), Some(9)));
    let started = ok(dir, &["ceremony", "new", "--phase1", "p", "--circuit", CIRCUIT, "--out", "0"], "");
    assert_eq!(started["phase1_blake2b"], imported["blake2b"]);
    let anna = ok(dir, &["ceremony", "contribute", "0", "--out", "1", "--name", "anna"], "");
    ok(dir, &["ceremony", "verify", "1", "--phase1", "p"], "");

    // Not ended, not a hash, another phase 1, a changed byte, a name that is taken.
    let (code, why) = refused(dir, &["ceremony", "finalize", "1", "--phase1", "p", "--out", "keys"]);
    assert!(code == 2 && why.contains("has not ended"), "{code} {why}");
    let short = ["ceremony", "beacon", "1", "--out", "x", "--value", "7c", "--iterations-log2", "4"];
    assert_eq!(refused(dir, &short).0, 2);
    let other = ["ceremony", "import", "r0", "--circuit", CIRCUIT, "--expect", &"0".repeat(128), "--out", "x"];
    let (code, why) = refused(dir, &other);
    assert!(code == 3 && why.contains("BLAKE2b-512"), "{code} {why}");
    let (code, why) = refused(dir, &["ceremony", "verify", "1", "--phase1", "c1"]);
    assert!(code == 3 && why.contains("length of no phase-1 file"), "{code} {why}");
    let mut bytes = std::fs::read(dir.join("1")).unwrap();
    bytes[300] ^= 1;
    std::fs::write(dir.join("bad"), bytes).unwrap();
    for command in
        [&["ceremony", "verify", "bad", "--phase1", "p"][..], &["ceremony", "contribute", "bad", "--out", "x"]]
    {
        let (code, why) = refused(dir, command);
        assert!(code == 3 && why.contains("help"), "{code} {why}");
    }
    assert_eq!(refused(dir, &["ceremony", "contribute", "0", "--out", "1"]).0, 1);
    assert!(!dir.join("x").exists());

    let value = "7c".repeat(32);
    let end = ok(dir, &["ceremony", "beacon", "1", "--out", "2", "--value", &value, "--iterations-log2", "4"], "");
    let done = ok(dir, &["ceremony", "finalize", "2", "--phase1", "p", "--out", "keys"], "");
    assert_eq!((done["hash"].as_str(), done["ended"].as_bool()), (end["hash"].as_str(), Some(true)));
    let status = ok(dir, &["ceremony", "status", "2"], "");
    assert_eq!(status["contributions"][0]["hash"], anna["hash"]);
    let checked = ok(dir, &["ceremony", "verify", "2", "--phase1", "p", "--keys-dir", "keys"], "");
    assert_eq!(checked["pinned_hash"], done["pinned_hash"]);
    let vkey: Value =
        serde_json::from_slice(&std::fs::read(dir.join("keys/storage_v2_k0-h0-d1-t1.vkey.json")).unwrap()).unwrap();
    assert_eq!(vkey["insecure_dev_key"], Value::Bool(false));
    assert_eq!(vkey["transcript"].as_str().unwrap(), format!("0x{}", end["hash"].as_str().unwrap()));
    let matrices = ok(dir, &["ceremony", "matrices", CIRCUIT, "--out", "m"], "");
    assert_eq!(matrices["matrix_hash"], started["matrix_hash"]);
    let (code, why) = refused(dir, &["ceremony", "contribute", "2", "--out", "3"]);
    assert!(code == 2 && why.contains("ended"), "{code} {why}");
}

#[test]
fn the_walkthrough_in_the_docs_works_as_it_is_typed() {
    const PAGE: &str = include_str!("../../docs/protocol/ceremony.md");
    let temporary = tempfile::tempdir().unwrap();
    let (_, block) =
        PAGE.split_once("<!-- run: cli/tests/ceremony.rs -->\n```sh\n").expect("the page has a walkthrough");
    let (block, _) = block.split_once("```").expect("a block ends");
    let (mut last, mut names) = (Value::Null, Value::Null);
    for line in block.lines() {
        let words: Vec<&str> = line.split_whitespace().collect();
        let ["fluence", args @ ..] = &words[..] else { panic!("no command of ours: {line}") };
        last = ok(temporary.path(), args, "");
        if args[..2] == ["ceremony", "status"] {
            names = last["contributions"].as_array().unwrap().iter().map(|c| c["name"].clone()).collect();
        }
    }
    assert_eq!(names, serde_json::json!(["anna", "bela"]));
    assert!(last["pinned_hash"].is_string(), "{last}");
    assert!(temporary.path().join("keys/storage_v2_k0-h0-d1-t1.key").exists());
}
