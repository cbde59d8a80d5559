//! A cluster of real processes, driven as a person would: `up`, `cluster create`, `import`, a node killed, status, restart, replacement.
//!
//! Rule    nothing waits for a fixed time: what must come true is looked for until a deadline. Every port is free for the asking.

mod support;

use serde_json::Value;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;
use support::{LIMIT, Owner, POLL, Up, kill, program, runs, text};

impl Owner {
    fn import(&self, file: &str, rows: u64) -> Value {
        let done = self.json(&["import", file, "--table", "rain", "--key", "day,place"]);
        assert_eq!(done["rows"].as_u64(), Some(rows), "{done}");
        done
    }

    fn count(&self) -> u64 {
        self.json(&["query", "rain", "--agg", "count"])["answers"][0]["value"].as_u64().unwrap()
    }
}

fn csv(path: &Path, place: &str, rows: u32) {
    let lines = (0..rows).map(|i| format!("{i},{place},{}\n", i * 7 % 100));
    std::fs::write(path, std::iter::once("day,place,mm\n".to_owned()).chain(lines).collect::<String>()).unwrap();
}

fn member<'a>(status: &'a Value, node: &str) -> &'a Value {
    status["members"]
        .as_array()
        .unwrap()
        .iter()
        .find(|m| m["node"] == node)
        .unwrap_or_else(|| panic!("{node}: {status}"))
}

#[test]
fn four_nodes_come_up_lose_one_go_on_and_come_back() {
    let dir = tempfile::tempdir().unwrap();
    let owner = Owner::new(dir.path());
    let up = Up::start(dir.path(), &["-n", "4", "--home", "home"]);
    assert_eq!(up.nodes().len(), 4);
    assert!(!dir.path().join("up/passphrase").exists(), "the owner has a home of its own");
    for name in ["a", "b", "c"] {
        csv(&dir.path().join(format!("{name}.csv")), name, 40);
    }

    // A name for four nodes; then the same again, and nodes that are none.
    let addresses = up.addresses();
    let nodes: Vec<&str> = addresses.iter().flat_map(|a| ["--node", a]).collect();
    let made = owner.json(&[&["cluster", "create", "main"][..], &nodes].concat());
    assert_eq!(made["members"].as_array().unwrap().len(), 4);
    owner.refused(&[&["cluster", "create", "main"][..], &nodes].concat(), 2, "already");
    owner.refused(&["cluster", "create", "other", "--node", "/ip4/127.0.0.1/tcp/1"], 2, "not the address of a node");
    let twice = ["cluster", "create", "other", "--node", addresses[0], "--node", addresses[0]];
    owner.refused(&twice, 2, "named twice");

    owner.import("a.csv", 40);
    let status =
        owner.until("all vote", |s| s["members"].as_array().is_some_and(|m| m.iter().all(|m| m["voting"] == true)));
    assert_eq!((status["answering"].as_u64(), status["quorum"].as_u64()), (Some(4), Some(3)));
    assert!(status["root"].is_string() && status["diverged"] == false, "{status}");
    owner.refused(&["cluster", "join", addresses[1]], 1, "is a member of the cluster");
    owner.refused(&["cluster", "leave", "0123"], 2, "names no member");

    // One is killed: the others go on, and say who is missing.
    let pid = up.pids()[1];
    kill(pid);
    let began = Instant::now();
    while runs(pid) {
        assert!(began.elapsed() < LIMIT, "node {pid} is killed and runs");
        std::thread::sleep(POLL);
    }
    owner.import("b.csv", 40);
    assert_eq!(owner.count(), 80);
    let gone = up.of(1, "node").to_owned();
    let status = owner.until("the dead one is missed", |s| {
        s["members"].as_array().is_some_and(|m| m.iter().any(|m| m["node"] == gone && m["connected"] == 0))
    });
    assert_eq!((status["answering"].as_u64(), member(&status, &gone)["answers"].as_bool()), (Some(3), Some(false)));
    assert!(member(&status, &gone)["error"].is_string());

    // A second one: no quorum, and that is what is said.
    kill(up.pids()[2]);
    owner.until("two are missing", |s| s["answering"] == 2);
    owner.refused(&["cluster", "status"], 1, "2 of 4 members answer, 3 are needed");
    owner.refused(&["cluster", "leave", &gone], 1, "2 of 4 members answer, 3 are needed");
    let nodes_before: Vec<String> = addresses.iter().map(|a| (*a).to_owned()).collect();
    up.stop();

    // The same folder again: the same nodes at the same addresses, with everything.
    let up = Up::start(dir.path(), &["--home", "home"]);
    assert_eq!(up.addresses(), nodes_before);
    owner.until("all are level again", |s| {
        s["members"]
            .as_array()
            .is_some_and(|m| m.len() == 4 && m.iter().all(|m| m["answers"] == true && m["lag"].as_u64() < Some(3)))
    });
    assert_eq!(owner.count(), 80);
    owner.import("c.csv", 40);
    assert_eq!(owner.count(), 120);
    up.stop();
}

/// Nodes whose clusters are in a hurry: blocks follow each other, and a member that is silent for six seconds is missing.
fn in_a_hurry(dir: &Path, nodes: usize) {
    let up = dir.join("up");
    for i in 1..=nodes {
        let own = up.join(format!("node-{i}"));
        std::fs::create_dir_all(&own).unwrap();
        // The last has no key of its circuit, and may make none.
        let (depth, keys) = if i == nodes { (4, false) } else { (3, true) };
        let text = format!(
            "[net]\nlisten = [\"/ip4/127.0.0.1/tcp/0\"]\n\
            [cluster]\nidle_ms = 100\nquiet_ms = 100\nleader_ms = 1000\nmissing_ms = 6000\n\
            [proving]\nstorage = \"storage/v2/k16-h1-d{depth}-t6\"\nmake_dev_keys = {keys}\n"
        );
        std::fs::write(own.join("node.toml"), text).unwrap();
    }
    std::fs::write(up.join(".fluence-up"), "").unwrap();
}

fn is_member(status: &Value, node: &str) -> bool {
    let is = |m: &Value| m["node"] == node && (m["role"] == "member" || m["role"] == "leaving");
    status["members"].as_array().is_some_and(|all| all.iter().any(is))
}

#[test]
fn members_are_replaced_by_hand_and_by_themselves_while_rows_are_written() {
    let dir = tempfile::tempdir().unwrap();
    let owner = Owner::new(dir.path());
    in_a_hurry(dir.path(), 7);
    let up = Up::start(dir.path(), &["--home", "home"]);
    assert_eq!(up.nodes().len(), 7);
    let addresses = up.addresses();
    let id = |i: usize| up.of(i, "node").to_owned();
    for name in ["a", "b", "c"] {
        csv(&dir.path().join(format!("{name}.csv")), name, 40);
    }
    let nodes: Vec<&str> = addresses[..4].iter().flat_map(|a| ["--node", a]).collect();
    owner.json(&[&["cluster", "create", "main"][..], &nodes].concat());
    owner.import("a.csv", 40);

    // A newcomer without the key to prove with never gets its seat: the wish stands until it is dropped.
    owner.refused(&["cluster", "cancel"], 1, "nothing is wished for");
    let wished = owner.json(&["cluster", "join", addresses[6], "--no-wait"]);
    assert_eq!((wished["done"].as_bool(), wished["joins"].as_str()), (Some(false), Some(id(6).as_str())));
    owner.until("the wish is seen", |s| s["wish"]["join"] == id(6));
    owner.refused(&["cluster", "join", addresses[6], "--timeout", "1"], 1, "did not come true within 1 s");
    owner.json(&["cluster", "cancel"]);
    owner.until("the wish is dropped", |s| s["wish"].is_null() && s["height"].is_u64() && !is_member(s, &id(6)));

    // One is killed, and replaced while rows are written.
    kill(up.pids()[1]);
    let replacing = owner.start(&["cluster", "replace", "--out", &id(1), "--with", addresses[4]]);
    // Two commands of one owner that write at once would take each other's place in its chain: this one only looks from here on.
    owner.until("the replacement is wished for", |s| s["wish"]["leave"] == id(1) || !is_member(s, &id(1)));
    owner.import("b.csv", 40);
    let replaced = Owner::finished(replacing);
    assert_eq!((replaced["done"].as_bool(), replaced["leaves"].as_str()), (Some(true), Some(id(1).as_str())));
    let members = replaced["members"].as_array().unwrap();
    assert!(members.iter().any(|m| *m == id(4)) && !members.iter().any(|m| *m == id(1)), "{replaced}");
    assert_eq!(owner.count(), 80);
    owner.refused(&["cluster", "replace", "--out", &id(1), "--with", addresses[5]], 2, "names no member");

    // A second one is killed: the node that waits takes its seat, and nobody asks for it.
    let standby = owner.json(&["cluster", "standby", addresses[5]]);
    assert_eq!(standby["standby"][0].as_str(), Some(id(5).as_str()));
    assert_eq!(owner.json(&["cluster", "standby"])["standby"][0].as_str(), Some(id(5).as_str()));
    owner.until("it waits, and has everything", |s| {
        let waits = |m: &Value| m["node"] == id(5) && m["role"] == "standby" && m["missing_segments"] == 0;
        s["members"].as_array().is_some_and(|all| all.iter().any(waits))
    });
    kill(up.pids()[2]);
    owner.import("c.csv", 40);
    let repaired = owner.until("the one that waits has the seat", |s| {
        let votes =
            |m: &Value| m["node"] == id(5) && m["role"] == "member" && m["voting"] == true && m["signed"].is_u64();
        !is_member(s, &id(2)) && s["members"].as_array().is_some_and(|all| all.iter().any(votes))
    });
    assert_eq!((repaired["answering"].as_u64(), repaired["quorum"].as_u64()), (Some(4), Some(3)), "{repaired}");
    assert_eq!(owner.count(), 120);

    // Looked at until told to stop: a line each time.
    let mut watching = owner.command(&["cluster", "status", "--watch"]).stdout(Stdio::piped()).spawn().unwrap();
    let lines = BufReader::new(watching.stdout.take().unwrap()).lines().take(2);
    for line in lines {
        let seen: Value = serde_json::from_str(&line.unwrap()).unwrap();
        assert_eq!(seen["members_total"], 4, "{seen}");
    }
    assert!(Command::new("kill").args(["-INT", &watching.id().to_string()]).status().unwrap().success());
    assert!(watching.wait().unwrap().success(), "ctrl-C is no failure");

    // One leaves: three are left, which bear nothing.
    let left = owner.json(&["cluster", "leave", &id(0)]);
    assert_eq!((left["done"].as_bool(), left["members"].as_array().map(Vec::len)), (Some(true), Some(3)), "{left}");
    assert_eq!(owner.count(), 120);
    up.stop();
}

#[test]
fn nodes_end_with_their_parent_even_where_it_is_killed() {
    let dir = tempfile::tempdir().unwrap();
    let mut up = Up::start(dir.path(), &["-n", "1"]);
    let (pid, node) = (u64::from(up.process.id()), up.pids()[0]);
    assert!(runs(node));
    // Without a home, the owner gets one, with its passphrase beside it.
    let mode = |file: &str| std::fs::metadata(dir.path().join(file)).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode("up"), mode("up/passphrase"), mode("up/home/keystore.age")), (0o700, 0o600, 0o600));
    let mut phrase = program(dir.path());
    phrase.args(["keys", "backup", "--json", "--home", "up/home"]);
    let phrase = phrase.args(["--passphrase-file", "up/passphrase"]).stdin(Stdio::null()).output().unwrap();
    assert!(phrase.status.success(), "{}", text(&phrase.stderr));
    let second = program(dir.path()).args(["up", "--dir", "up", "--json"]).stdin(Stdio::null()).output().unwrap();
    assert!(text(&second.stderr).contains("another `fluence up`"), "{}", text(&second.stderr));
    kill(pid);
    let _ = up.process.wait();
    let begun = Instant::now();
    while runs(node) {
        assert!(begun.elapsed() < LIMIT, "node {node} outlives its parent");
        std::thread::sleep(POLL);
    }
}
