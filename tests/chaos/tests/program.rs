//! The program itself, as a person or a Makefile calls it.

use std::process::Command;

fn said(args: &[&str]) -> (bool, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_fluence-chaos")).args(args).output().unwrap();
    let text = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8_lossy(&text).into_owned())
}

#[test]
fn a_program_that_is_not_there_and_a_fault_that_is_none_are_named() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().display().to_string();
    let (ok, text) = said(&["--fluence", "/nowhere/fluence", "--seeds", "1", "--faults", "kill", "--out", &out]);
    assert!(!ok && text.contains("/nowhere/fluence"), "{text}");
    let (ok, text) = said(&["--fluence", "/bin/true", "--faults", "flood"]);
    assert!(!ok && text.contains("flood") && text.contains("unplug"), "{text}");
}
