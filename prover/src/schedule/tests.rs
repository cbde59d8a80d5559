//! Turns, memory, the gate: what holds is seen by what the others could not do meanwhile, never by time.

use super::*;
use std::sync::atomic::AtomicUsize;
use std::sync::mpsc;

fn scheduler(threads: usize, at_once: usize, memory_bytes: Option<u64>) -> Scheduler {
    let number = |n| NonZeroUsize::new(n).unwrap();
    Scheduler::new(Limits { threads: Some(number(threads)), at_once: number(at_once), memory_bytes })
}

#[test]
fn threads_are_shared_out_and_slots_are_never_more() {
    for (threads, at_once, want) in [(5, 2, vec![2, 3]), (2, 8, vec![1, 1]), (3, 1, vec![3])] {
        let s = scheduler(threads, at_once, None);
        assert_eq!(s.slots(), want.len());
        let mut shares: Vec<usize> = lock(&s.free).pools.iter().map(rayon::ThreadPool::current_num_threads).collect();
        shares.sort_unstable();
        assert_eq!(shares, want);
    }
}

#[test]
fn no_more_turns_than_slots_and_each_comes_back() {
    let s = scheduler(2, 2, None);
    let (most, now) = (AtomicUsize::new(0), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        for _ in 0..16 {
            scope.spawn(|| {
                let _turn = s.turn(1).unwrap();
                most.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                std::thread::yield_now();
                now.fetch_sub(1, Ordering::SeqCst);
            });
        }
    });
    assert!(most.load(Ordering::SeqCst) <= 2);
    assert_eq!(lock(&s.free).pools.len(), 2);
    // A panic gives the slot back too.
    let died = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        let _turn = s.turn(1).unwrap();
        std::panic::resume_unwind(Box::new(()));
    }));
    assert!(died.is_err());
    assert_eq!(lock(&s.free).pools.len(), 2);
}

#[test]
fn memory_is_waited_for_and_too_much_is_refused() {
    let s = scheduler(2, 2, Some(100));
    let refused = s.turn(101).err().unwrap();
    assert!(matches!(refused, ProveError::Memory { need: 101, limit: 100 }), "{refused}");
    assert_eq!(s.busy_threads(), 0);
    let first = s.turn(60).unwrap();
    assert_eq!(s.busy_threads(), 1);
    // There is a slot, but no memory: the second has its turn only when the first is done.
    let (asked, heard) = mpsc::channel();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            asked.send("asks").unwrap();
            let _turn = s.turn(60).unwrap();
            asked.send("has it").unwrap();
        });
        assert_eq!(heard.recv().unwrap(), "asks");
        assert!(heard.try_recv().is_err());
        assert_eq!(lock(&s.free).memory_bytes, Some(40));
        drop(first);
        assert_eq!(heard.recv().unwrap(), "has it");
    });
    assert_eq!(lock(&s.free).memory_bytes, Some(100));
}

#[test]
fn a_closed_gate_holds_until_it_is_opened() {
    let s = scheduler(1, 1, None);
    s.gate.pass();
    s.pause();
    assert!(s.is_paused());
    let (passed, heard) = mpsc::channel();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            s.gate.pass();
            passed.send(s.is_paused()).unwrap();
        });
        assert!(heard.try_recv().is_err());
        s.resume();
        // Had it passed before, it would say that the gate was closed.
        assert_eq!(heard.recv(), Ok(false));
    });
}
