//! The quick set: seeds without a violation, and each planted bug found. `make sim` and `make sim-planted` run the long ones.

use fluence_sim::{Planted, campaign, run};

/// A seed that is known to show the bug does; and without the bug it is clean, so that it is the bug that was found. The search for the
/// first such seed is `make sim-planted`.
fn finds(planted: Planted, seed: u64) {
    let found = run(seed, Some(planted), false);
    assert!(
        !found.violations.is_empty(),
        "{planted} was not found in seed {seed}; `make sim-planted` looks for another"
    );
    assert_eq!(run(seed, None, false).violations, Vec::<String>::new(), "seed {seed} without {planted}");
}

#[test]
fn the_same_seeds_give_the_same_digest_and_others_another() {
    let digest = |first| campaign(first, 2, None, |_, _| {}).digest;
    let first = digest(2);
    assert_eq!(first, digest(2));
    assert_ne!(first, digest(3));
}

#[test]
fn nothing_that_must_hold_breaks_in_the_quick_set() {
    let summary = campaign(2, 4, None, |_, _| {});
    assert_eq!(summary.violations, []);
    assert_eq!(summary.seeds, 4);
    assert!(summary.faults_all() > 3 && summary.byzantine() > 0, "{summary:?}");
    assert!(summary.answered > 20, "{summary:?}");
}

#[test]
fn a_quorum_of_2f_is_found() {
    finds(Planted::ShortQuorum, 15);
}

#[test]
fn an_unchecked_root_is_found() {
    finds(Planted::UncheckedRoot, 24);
}

#[test]
fn a_mempool_that_is_drained_by_proposals_is_found() {
    finds(Planted::DrainedMempool, 97);
}

#[test]
fn a_vote_without_the_lost_journal_is_found() {
    finds(Planted::LostVoteJournal, 8);
}

#[test]
fn an_accepted_bad_page_is_found() {
    finds(Planted::BadPage, 23);
}
