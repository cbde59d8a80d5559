//! A short round of chaos over real processes: nodes are killed, paused and restarted under load, and the history is checked.
//!
//! Rule    what strikes follows from the seed; when, from the machine. What is asserted holds whatever the timing.
//! Long    `make chaos` plays many rounds, with full disks, wrong clocks and cut networks too (docs/chaos.md)

use fluence_chaos::check::check;
use fluence_chaos::history::{History, Outcome as Became, Row};
use fluence_chaos::{Fault, Machine, Settings, run};
use std::time::Duration;

#[test]
fn nodes_killed_paused_and_restarted_under_load_lose_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let settings = Settings {
        program: env!("CARGO_BIN_EXE_fluence").into(),
        dir: dir.path().to_owned(),
        machine: Machine::plain(),
        faults: vec![Fault::Kill, Fault::Pause, Fault::Restart],
        members: Some(4),
        length: Duration::from_secs(8),
        databases: 1,
        writers: 2,
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let outcome = runtime.block_on(run(3, &settings)).unwrap();
    assert!(outcome.violations.is_empty(), "{:#?}\n{:#?}", outcome.violations, outcome.struck);
    assert!(outcome.struck.len() >= 3, "every kind strikes: {:?}", outcome.struck);
    assert_eq!(outcome.history.finals.len(), 4, "every member was asked alone");
    assert!(outcome.writes().0 >= 3, "{:?}", outcome.writes());

    // The same history with a lie in it is found out.
    let acknowledged = |w: &&fluence_chaos::history::Write| matches!(w.outcome, Became::Acknowledged { .. });
    let row = outcome.history.writes.iter().find(acknowledged).unwrap().row;
    let planted = |change: &dyn Fn(&mut History)| {
        let mut history = outcome.history.clone();
        change(&mut history);
        check(&history)
    };
    let lost = planted(&|h| h.finals.iter_mut().for_each(|f| f.rows.retain(|r| *r != row)));
    assert!(lost.iter().any(|v| v.contains("and is gone")), "{lost:?}");
    let at_one = planted(&|h| h.finals[2].rows.retain(|r| *r != row));
    assert!(at_one.iter().any(|v| v.starts_with("agreement:")), "{at_one:?}");
    let twice = planted(&|h| h.finals[1].rows.push(row));
    assert!(twice.iter().any(|v| v.contains("twice")), "{twice:?}");
    let ghost = planted(&|h| h.finals.iter_mut().for_each(|f| f.rows.push(Row { writer: 99, n: 0 })));
    assert!(ghost.iter().any(|v| v.contains("nobody wrote it")), "{ghost:?}");
}
