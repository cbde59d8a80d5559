//! Import, export and tables over real processes: every format, a process that is killed in the middle, files that are refused, manifests
//! and what is caught of lies about them.

mod support;

use serde_json::{Value, json};
use std::io::Write;
use std::path::Path;
use std::process::{Output, Stdio};
use std::time::Instant;
use support::{LIMIT, Owner, POLL, Up, kill, text};

/// Rows of a table in key order.
fn rows(owner: &Owner, table: &str) -> Value {
    owner.json(&["query", table])["rows"].clone()
}

fn code(output: &Output) -> i32 {
    output.status.code().unwrap_or(-1)
}

/// A cluster of one node and its owner.
fn cluster(dir: &Path) -> (Owner, Up) {
    let owner = Owner::new(dir);
    let up = Up::start(dir, &["-n", "1", "--home", "home"]);
    owner.json(&["cluster", "create", "main", "--node", up.addresses()[0]]);
    (owner, up)
}

const TRIPS: &str = "\
id,at,fare,paid,note\n\
3,2013-01-02T05:00:00Z,12.50,true,\"a, b\"\n\
1,2013-01-01T05:00:00Z,7.25,false,NA\n\
2,2013-01-01T06:30:00Z,NA,true,plain\n";

#[test]
fn what_is_exported_is_imported_again_in_every_format_and_manifests_hold() {
    let dir = tempfile::tempdir().unwrap();
    let (owner, up) = cluster(dir.path());
    let write = |name: &str, text: &str| std::fs::write(dir.path().join(name), text).unwrap();
    write("trips.csv", TRIPS);
    let dry = owner.json(&["import", "trips.csv", "--null", "NA", "--dry-run"]);
    assert_eq!(
        (dry["imported"].as_bool(), dry["rows"].as_u64(), dry["columns"][2]["name"].as_str()),
        (Some(false), Some(3), Some("fare"))
    );
    let made = owner.json(&["import", "trips.csv", "--table", "trips", "--key", "id", "--null", "NA", "--sum", "fare"]);
    assert_eq!(
        (made["imported"].as_bool(), made["rows"].as_u64(), made["repeated_keys"].as_u64()),
        (Some(true), Some(3), Some(0))
    );
    let again = owner.json(&["import", "trips.csv", "--table", "trips", "--null", "NA"]);
    assert_eq!(again["imported"].as_bool(), Some(false), "{again}");
    let want = rows(&owner, "trips");
    assert_eq!(want.as_array().unwrap().len(), 3);

    let members = owner.json(&["cluster", "members"]);
    let committee = members["committee"].as_str().unwrap();
    for name in ["csv", "parquet", "arrow", "jsonl"] {
        let file = format!("out.{name}");
        let exported = owner.json(&["export", "trips", "--out", &file, "--verify", "--null", "\\N"]);
        assert_eq!((exported["rows"].as_u64(), exported["segments"].as_u64()), (Some(3), Some(1)), "{exported}");
        assert!(exported["height"].is_u64() && exported["root"].is_string());
        owner.refused(&["export", "trips", "--out", &file], 2, "is there already");

        // A third party, with nothing but the file, the manifest, and the hash of the committee.
        let signer = exported["owner"].as_str().unwrap();
        let stranger = |args: &[&str]| {
            let mut command = support::program(dir.path());
            command.args(args).args(["--json", "--home", "nobody"]).stdin(Stdio::null()).output().unwrap()
        };
        let checked = stranger(&["verify-export", &file, "--committee", committee, "--owner", signer]);
        assert_eq!(code(&checked), 0, "{}", text(&checked.stderr));
        let checked: Value = serde_json::from_slice(&checked.stdout).unwrap();
        assert_eq!(
            (checked["verified"].as_bool(), checked["recomputed"].as_bool(), checked["rows"].as_u64()),
            (Some(true), Some(false), Some(3))
        );
        assert_eq!(code(&stranger(&["verify-export", &file])), 3, "no committee is trusted");
        let other = format!("0x{}", "11".repeat(32));
        assert_eq!(code(&stranger(&["verify-export", &file, "--committee", &other])), 3);
        let nobody = format!("0x{}", "11".repeat(20));
        assert_eq!(code(&stranger(&["verify-export", &file, "--committee", committee, "--owner", &nobody])), 3);
        assert_eq!(code(&stranger(&["verify-export", &file, "--committee", committee, "--min-height", "1000000"])), 3);
        // The owner, whose keys open the segments again.
        assert_eq!(owner.json(&["verify-export", &file, "--recompute"])["recomputed"].as_bool(), Some(true));

        // The file again, as another table: equal to the value.
        let table = format!("back_{name}");
        let mut args = vec!["import", &file, "--table", &table, "--key", "id"];
        if name == "csv" {
            args.extend(["--null", "\\N"]);
        }
        let back = owner.json(&args);
        assert_eq!(back["rows"].as_u64(), Some(3), "{back}");
        assert_eq!(rows(&owner, &table), want, "{name}");

        // A byte of it changed.
        let path = dir.path().join(&file);
        let mut bytes = std::fs::read(&path).unwrap();
        let at = bytes.len() / 2;
        bytes[at] ^= 1;
        std::fs::write(&path, &bytes).unwrap();
        owner.refused(&["verify-export", &file], 3, "is not the one that was exported");
        let manifest = dir.path().join(format!("{file}.manifest.json"));
        let mut lie: Value = serde_json::from_slice(&std::fs::read(&manifest).unwrap()).unwrap();
        lie["statement"]["rows"] = json!(2);
        std::fs::write(&manifest, serde_json::to_vec(&lie).unwrap()).unwrap();
        owner.refused(&["verify-export", &file], 3, "signed by");
    }

    // A range, some columns; the rest of the table moves on, and then away.
    owner.json(&["export", "trips", "--out", "some.csv", "--from", "2", "--select", "id,paid", "--verify"]);
    assert_eq!(std::fs::read_to_string(dir.path().join("some.csv")).unwrap(), "id,paid\n2,true\n3,true\n");
    let some = owner.json(&["verify-export", "some.csv", "--recompute"]);
    assert_eq!((some["whole_table"].as_bool(), some["rows"].as_u64()), (Some(false), Some(2)));
    write("more.csv", "id,at,fare,paid,note\n3,2014-01-01T00:00:00Z,1.00,true,x\n3,2014-01-01T00:00:00Z,1.00,true,x\n");
    let more = owner.json(&["import", "more.csv", "--table", "trips"]);
    assert_eq!(more["repeated_keys"].as_u64(), Some(1), "{more}");
    assert_eq!(owner.json(&["verify-export", "some.csv", "--recompute"])["recomputed"].as_bool(), Some(true));
    let stats = owner.json(&["table", "stats", "trips"]);
    assert_eq!(
        (stats["rows"].as_u64(), stats["dead_rows"].as_u64(), stats["segments"].as_array().map(Vec::len)),
        (Some(5), Some(0), Some(2))
    );
    assert_eq!((stats["limits"]["live_segments"].as_u64(), stats["amplification"].as_f64()), (Some(16), Some(1.0)));
    assert_eq!(owner.json(&["table", "compact", "trips"])["compacted"].as_bool(), Some(true));
    assert_eq!(owner.json(&["table", "compact", "trips"])["compacted"].as_bool(), Some(false));
    owner.refused(&["verify-export", "some.csv", "--recompute"], 1, "no longer live");
    assert_eq!(owner.json(&["verify-export", "some.csv"])["verified"].as_bool(), Some(true));
    assert_eq!(owner.json(&["table", "ls"])["tables"].as_array().map(Vec::len), Some(5));
    up.stop();
}

#[test]
fn files_that_are_refused_leave_no_table_behind() {
    let dir = tempfile::tempdir().unwrap();
    let (owner, up) = cluster(dir.path());
    let write = |name: &str, bytes: &[u8]| std::fs::write(dir.path().join(name), bytes).unwrap();
    write("bad.csv", b"id,n\n1,2\n2,x\n");
    owner.refused(
        &["import", "bad.csv", "--table", "t", "--key", "id", "--types", "n=int64"],
        1,
        "row 2, column \\\"n\\\"",
    );
    write("nested.jsonl", b"{\"id\":1,\"tags\":[1]}\n");
    owner.refused(&["import", "nested.jsonl", "--table", "t", "--key", "id"], 1, "tags");
    write("cut.parquet", b"PAR1 and no more PAR1");
    owner.refused(&["import", "cut.parquet", "--table", "t", "--key", "id"], 1, "Parquet");
    write("what.xlsx", b"");
    owner.refused(&["import", "what.xlsx", "--table", "t", "--key", "id"], 2, "does not follow from its name");
    write("good.csv", b"id,n\n1,2\n");
    owner.refused(&["import", "good.csv", "--table", "t"], 2, "--key");
    owner.refused(&["import", "good.csv", "--table", "t", "--key", "nope"], 2, "nope");
    owner.refused(
        &["import", "-", "--format", "parquet", "--table", "t", "--key", "id"],
        1,
        "is not read from a stream",
    );
    assert_eq!(owner.json(&["table", "ls"])["tables"], json!([]));

    // From standard input.
    let mut child = owner.command(&["import", "-", "--format", "jsonl", "--table", "t", "--key", "id"]);
    let mut child = child.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(b"{\"id\":1,\"n\":2}\n{\"id\":2}\n").unwrap();
    assert_eq!(Owner::finished(child)["rows"].as_u64(), Some(2));
    owner.refused(&["import", "good.csv", "--table", "t", "--key", "n"], 2, "with other columns or another key");
    assert_eq!(rows(&owner, "t"), json!([[1, 2], [2, null]]));
    owner.refused(&["table", "stats", "nowhere"], 1, "there is no table");
    up.stop();
}

/// Reads the note of the one import there is.
fn note(dir: &Path) -> Option<Value> {
    let entries = std::fs::read_dir(dir.join("home/imports")).ok()?;
    let path = entries.flatten().map(|e| e.path()).find(|p| p.extension().is_some_and(|e| e == "json"))?;
    serde_json::from_slice(&std::fs::read(path).ok()?).ok()
}

#[test]
fn an_import_that_is_killed_goes_on_where_it_was() {
    let dir = tempfile::tempdir().unwrap();
    let (owner, up) = cluster(dir.path());
    let total = 256 * 40;
    let mut csv = "id,name\n".to_owned();
    (0..total).for_each(|i| csv.push_str(&format!("{i},name {}\n", i % 97)));
    std::fs::write(dir.path().join("many.csv"), &csv).unwrap();
    let args = ["import", "many.csv", "--table", "many", "--key", "id", "--sum", "id", "--segment-rows", "256"];

    // Killed three times, each time some segments later.
    let mut before = 0;
    for _ in 0..3 {
        let mut child = owner.start(&args);
        let begun = Instant::now();
        loop {
            let rows = note(dir.path()).and_then(|n| n["rows"].as_u64()).unwrap_or(0);
            if rows > before {
                before = rows;
                break;
            }
            assert!(child.try_wait().unwrap().is_none(), "it ended by itself");
            assert!(begun.elapsed() < LIMIT, "nothing is committed");
            std::thread::sleep(POLL / 10);
        }
        kill(u64::from(child.id()));
        child.wait().unwrap();
        assert!(before < total, "it was too fast to be killed");
    }
    // The file as it is now must be the one that it was.
    std::fs::write(dir.path().join("many.csv"), csv.replace("name 5", "name x")).unwrap();
    owner.refused(&args, 1, "has changed since its import");
    std::fs::write(dir.path().join("many.csv"), &csv).unwrap();
    let done = owner.json(&args);
    let after = done["after_row"].as_u64().unwrap();
    assert!(after >= before && after % 256 == 0, "{done}");
    assert_eq!(after + done["rows"].as_u64().unwrap(), total);
    assert_eq!(owner.json(&args)["imported"].as_bool(), Some(false));

    // Each row once.
    let sums = owner.json(&["query", "many", "--agg", "count", "--agg", "sum:id"]);
    let value = |i: usize| sums["answers"][i]["value"].as_u64().unwrap();
    assert_eq!((value(0), value(1)), (total, total * (total - 1) / 2), "{sums}");
    let stats = owner.json(&["table", "stats", "many"]);
    assert!(stats["segments"].as_array().unwrap().len() <= 16, "{stats}");
    assert_eq!(stats["dead_rows"].as_u64(), Some(0));
    up.stop();
}

#[test]
fn an_import_without_a_quorum_says_who_does_not_answer() {
    let dir = tempfile::tempdir().unwrap();
    let owner = Owner::new(dir.path());
    let up = Up::start(dir.path(), &["-n", "4", "--home", "home"]);
    let nodes: Vec<String> = up.addresses().iter().flat_map(|a| ["--node".to_owned(), (*a).to_owned()]).collect();
    let nodes: Vec<&str> = nodes.iter().map(String::as_str).collect();
    owner.json(&[&["cluster", "create", "main"][..], &nodes].concat());
    kill(up.pids()[1]);
    kill(up.pids()[2]);
    std::fs::write(dir.path().join("a.csv"), "id\n1\n").unwrap();
    // What it says on the way goes to people.
    let mut command = support::program(dir.path());
    command.args(["import", "a.csv", "--table", "t", "--key", "id"]).stdin(Stdio::null());
    command.env("FLUENCE_HOME", dir.path().join("home")).env("FLUENCE_PASSPHRASE_FILE", dir.path().join("pass"));
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let lines = std::io::BufRead::lines(std::io::BufReader::new(child.stderr.take().unwrap()));
    let said = lines.map_while(Result::ok).find(|line| line.contains("2 of 4 members answer, 3 are needed"));
    assert!(said.is_some(), "it never said who is missing");
    let _ = child.kill();
    child.wait().unwrap();
    up.stop();
}
