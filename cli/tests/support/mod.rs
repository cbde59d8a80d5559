//! What tests of real processes share: the program, `fluence up`, an owner with a home.

#![allow(dead_code)]

use fluence_client::{Keyring, Keystore, Passphrase, WorkFactor};
use rand::rngs::OsRng;
use serde_json::Value;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Output, Stdio};
use std::time::{Duration, Instant};

/// How long anything may take on a busy machine.
pub(crate) const LIMIT: Duration = Duration::from_secs(180);
/// Between two looks.
pub(crate) const POLL: Duration = Duration::from_millis(50);

pub(crate) fn program(dir: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_fluence"));
    command.env_clear().current_dir(dir).env("PATH", std::env::var_os("PATH").unwrap_or_default());
    if let Some(keys) = std::env::var_os("FLUENCE_KEYS") {
        // Made once on a machine, not once a test.
        command.env("FLUENCE_KEYS", keys);
    }
    command
}

pub(crate) fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// `fluence up`, and the nodes it started.
pub(crate) struct Up {
    pub(crate) process: Child,
    pub(crate) ready: Value,
    /// What it says later; closed, it would end.
    _events: BufReader<ChildStdout>,
}

impl Up {
    pub(crate) fn start(dir: &Path, args: &[&str]) -> Self {
        let mut process = program(dir)
            .args(["up", "--json", "--stop-with-stdin", "--dir", "up"])
            .args(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(std::fs::File::create(dir.join("up.err")).unwrap())
            .spawn()
            .expect("the program under test starts");
        let mut line = String::new();
        let mut events = BufReader::new(process.stdout.take().unwrap());
        events.read_line(&mut line).unwrap();
        let why = || std::fs::read_to_string(dir.join("up.err")).unwrap_or_default();
        let ready = serde_json::from_str(&line).unwrap_or_else(|e| panic!("{e}: {line:?}: {}", why()));
        Self { process, ready, _events: events }
    }

    pub(crate) fn nodes(&self) -> &[Value] {
        self.ready["nodes"].as_array().unwrap()
    }

    pub(crate) fn pids(&self) -> Vec<u64> {
        self.nodes().iter().map(|n| n["pid"].as_u64().unwrap()).collect()
    }

    pub(crate) fn addresses(&self) -> Vec<&str> {
        self.nodes().iter().map(|n| n["address"].as_str().unwrap()).collect()
    }

    pub(crate) fn of(&self, i: usize, what: &str) -> &str {
        self.nodes()[i][what].as_str().unwrap()
    }

    /// Closes its standard input, and waits until it and all of its nodes are gone.
    pub(crate) fn stop(mut self) {
        drop(self.process.stdin.take());
        let status = self.process.wait().unwrap();
        assert!(status.success(), "{status}");
        assert!(!self.pids().into_iter().any(runs), "a node outlives its parent");
    }
}

impl Drop for Up {
    fn drop(&mut self) {
        // Only where a test failed before it stopped it.
        drop(self.process.stdin.take());
        let _ = self.process.wait();
    }
}

pub(crate) fn runs(pid: u64) -> bool {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    // A zombie has ended; its parent has not looked yet.
    status.lines().any(|l| l.starts_with("State:") && !l.contains('Z'))
}

pub(crate) fn kill(pid: u64) {
    assert!(Command::new("kill").args(["-9", &pid.to_string()]).status().unwrap().success());
}

/// An owner with a home.
pub(crate) struct Owner(PathBuf);

impl Owner {
    /// Its keystore opens quickly: it is opened by every command.
    pub(crate) fn new(dir: &Path) -> Self {
        std::fs::write(dir.join("pass"), "correct horse battery\n").unwrap();
        std::fs::set_permissions(dir.join("pass"), std::fs::Permissions::from_mode(0o600)).unwrap();
        let (path, keyring) = (dir.join("home/keystore.age"), Keyring::generate(&mut OsRng));
        Keystore::create(&path, &Passphrase::from_file(&dir.join("pass")).unwrap(), keyring, WorkFactor::TEST).unwrap();
        Self(dir.to_owned())
    }

    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let mut command = program(&self.0);
        command.args(args).arg("--json").env("FLUENCE_HOME", self.0.join("home"));
        command.env("FLUENCE_PASSPHRASE_FILE", self.0.join("pass")).stdin(Stdio::null());
        command
    }

    pub(crate) fn run(&self, args: &[&str]) -> Output {
        self.command(args).output().unwrap()
    }

    /// A command that goes on beside others.
    pub(crate) fn start(&self, args: &[&str]) -> Child {
        self.command(args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    }

    /// What it said in the end.
    pub(crate) fn finished(child: Child) -> Value {
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success(), "{}", text(&output.stderr));
        serde_json::from_slice(&output.stdout).unwrap()
    }

    pub(crate) fn json(&self, args: &[&str]) -> Value {
        let output = self.run(args);
        assert!(output.status.success(), "{args:?}: {}", text(&output.stderr));
        serde_json::from_slice(&output.stdout).unwrap_or_else(|e| panic!("{args:?}: {e}"))
    }

    pub(crate) fn refused(&self, args: &[&str], code: i32, words: &str) {
        let output = self.run(args);
        let stderr = text(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{args:?}: {stderr}");
        assert!(stderr.contains(words), "{args:?} says {stderr}, not {words:?}");
        assert!(serde_json::from_slice::<Value>(&output.stderr).unwrap()["help"].is_string(), "{args:?}: {stderr}");
    }

    /// The status, once it is as wanted.
    pub(crate) fn until(&self, what: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        let begun = Instant::now();
        loop {
            let output = self.run(&["cluster", "status"]);
            let status: Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
            if wanted(&status) {
                return status;
            }
            assert!(begun.elapsed() < LIMIT, "{what}: {status:#}: {}", text(&output.stderr));
            std::thread::sleep(POLL);
        }
    }
}
