//! Leases of tables: for a time, one writer.
//!
//! Rule    two writers could retract one row twice, or insert one key twice, and members, who read neither, could not see it. So a table may
//!         have one writer, whose commits carry the number of its lease. The number grows whenever somebody takes the lease, and one that
//!         is over never comes back: what an earlier holder still sends, or somebody sends again, changes nothing.
//! Time    the timestamp of the block that an operation is in, equal on every member. A lease that lapses changes no state.
//! Source  DESIGN section 7; Gray and Cheriton, "Leases", 1989; `docs/protocol/cluster.md`

use fluence_types::limits::{LEASE_MS_MAX, LEASE_MS_MIN};
use fluence_types::op::{Lease, LeaseAction, OpRefusal};
use fluence_types::{Address, Fence, TableId};
use std::collections::BTreeMap;

/// Who does something at a time.
#[derive(Clone, Copy)]
pub(crate) struct Doer {
    pub(crate) writer: Address,
    /// Whether it is the database's owner.
    pub(crate) owns: bool,
    pub(crate) now_ms: u64,
}

fn until(now_ms: u64, duration_ms: u32) -> Result<u64, OpRefusal> {
    if !(LEASE_MS_MIN..=LEASE_MS_MAX).contains(&duration_ms) {
        let why = format!("a lease of {duration_ms} ms; it runs for {LEASE_MS_MIN} to {LEASE_MS_MAX}");
        return Err(OpRefusal::Malformed(why));
    }
    Ok(now_ms.saturating_add(u64::from(duration_ms)))
}

/// Checks that `fence` is that of a lease which runs and is the doer's.
fn own(table: TableId, lease: Lease, by: Doer, fence: Fence) -> Result<(), OpRefusal> {
    match lease.fence == fence && lease.holder_at(by.now_ms) == Some(by.writer) {
        true => Ok(()),
        false => Err(OpRefusal::Fence { table, got: fence, lease }),
    }
}

/// The lease after an act.
pub(crate) fn act(table: TableId, lease: Lease, by: Doer, action: LeaseAction) -> Result<Lease, OpRefusal> {
    let ended = Lease { holder: None, until_ms: 0, ..lease };
    match action {
        LeaseAction::Acquire { fence, duration_ms } => {
            let until_ms = until(by.now_ms, duration_ms)?;
            // Not even its own holder takes it twice: two processes may have one key, and only the number tells them apart.
            if let Some(holder) = lease.holder_at(by.now_ms) {
                return Err(OpRefusal::Leased { table, holder, until_ms: lease.until_ms, now_ms: by.now_ms });
            }
            if lease.fence.0.checked_add(1) != Some(fence.0) {
                return Err(OpRefusal::Fence { table, got: fence, lease });
            }
            Ok(Lease { fence, holder: Some(by.writer), until_ms })
        }
        LeaseAction::Renew { fence, duration_ms } => {
            own(table, lease, by, fence)?;
            Ok(Lease { until_ms: until(by.now_ms, duration_ms)?, ..lease })
        }
        LeaseAction::Release { fence } => own(table, lease, by, fence).map(|()| ended),
        LeaseAction::Break if by.owns => Ok(ended),
        LeaseAction::Break => Err(OpRefusal::NotAllowed(by.writer)),
        _ => Err(OpRefusal::Malformed("an act on a lease that this version does not know".to_owned())),
    }
}

/// Checks what a commit says of leases: `changed` are the tables that it writes, and whether it retires segments of them.
pub(crate) fn check(
    leases: &BTreeMap<TableId, Lease>,
    by: Doer,
    fences: &[(TableId, Fence)],
    changed: &BTreeMap<TableId, bool>,
) -> Result<(), OpRefusal> {
    if !fences.is_sorted_by(|a, b| a.0 < b.0) {
        return Err(OpRefusal::Malformed("fences must be sorted by table, without repeats".to_owned()));
    }
    for (table, fence) in fences {
        own(*table, leases.get(table).copied().unwrap_or_default(), by, *fence)?;
    }
    for (table, retires) in changed {
        if fences.binary_search_by(|(t, _)| t.cmp(table)).is_ok() {
            continue;
        }
        let lease = leases.get(table).copied().unwrap_or_default();
        if let Some(holder) = lease.holder_at(by.now_ms) {
            return Err(OpRefusal::Leased { table: *table, holder, until_ms: lease.until_ms, now_ms: by.now_ms });
        }
        if *retires && !by.owns {
            return Err(OpRefusal::Unleased { table: *table, by: by.writer });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const TABLE: TableId = TableId(3);

    #[derive(Clone, Debug)]
    struct Step {
        writer: u8,
        pass_ms: u64,
        action: LeaseAction,
    }

    /// Numbers near those in use, and times near those that run.
    fn step() -> impl Strategy<Value = Step> {
        let fence = (0u64..12).prop_map(Fence);
        let duration = prop_oneof![Just(0u32), LEASE_MS_MIN..4000, Just(LEASE_MS_MAX), Just(u32::MAX)];
        let action = prop_oneof![
            4 => (fence.clone(), duration.clone()).prop_map(|(fence, duration_ms)| LeaseAction::Acquire { fence, duration_ms }),
            2 => (fence.clone(), duration).prop_map(|(fence, duration_ms)| LeaseAction::Renew { fence, duration_ms }),
            2 => fence.prop_map(|fence| LeaseAction::Release { fence }),
            1 => Just(LeaseAction::Break),
        ];
        (0u8..3, 0u64..3000, action).prop_map(|(writer, pass_ms, action)| Step { writer, pass_ms, action })
    }

    fn doer(writer: u8, now_ms: u64) -> Doer {
        Doer { writer: Address::from_bytes([writer; 20]), owns: writer == 0, now_ms }
    }

    proptest! {
        /// Over all that writers may do, at every moment: at most one writer's number passes, it is the highest ever given, one that is
        /// over never passes again, and whoever carries none passes only while nobody holds the table.
        #[test]
        fn no_two_fences_are_valid_at_once_and_none_comes_back(steps in proptest::collection::vec(step(), 1..60)) {
            let (mut lease, mut now_ms) = (Lease::default(), 1000u64);
            let mut over: std::collections::BTreeSet<(u8, u64)> = Default::default();
            let mut before: Option<(u8, u64)> = None;
            for Step { writer, pass_ms, action } in steps {
                now_ms += pass_ms;
                let was = lease;
                if let Ok(next) = act(TABLE, lease, doer(writer, now_ms), action) {
                    prop_assert!(next.fence >= was.fence, "a number fell");
                    if matches!(action, LeaseAction::Acquire { .. }) {
                        prop_assert!(was.holder_at(now_ms).is_none(), "taken from a holder");
                        prop_assert_eq!(next.fence.0, was.fence.0 + 1);
                    }
                    lease = next;
                }
                for at in [now_ms, now_ms + 1, now_ms + 2500] {
                    let leases = BTreeMap::from([(TABLE, lease)]);
                    let passes = |w: u8, fences: &[(TableId, Fence)], retires| {
                        check(&leases, doer(w, at), fences, &BTreeMap::from([(TABLE, retires)])).is_ok()
                    };
                    let valid: Vec<(u8, u64)> = (0..3).flat_map(|w| (0..64).map(move |f| (w, f)))
                        .filter(|(w, f)| passes(*w, &[(TABLE, Fence(*f))], true)).collect();
                    prop_assert!(valid.len() <= 1, "{valid:?}");
                    prop_assert!(valid.iter().all(|v| !over.contains(v)), "{valid:?} came back");
                    prop_assert!(valid.iter().all(|v| v.1 == lease.fence.0 && v.1 > 0));
                    let free = valid.is_empty();
                    for w in 0..3 {
                        prop_assert_eq!(passes(w, &[], false), free, "writing without a number");
                        prop_assert_eq!(passes(w, &[], true), free && w == 0, "retiring without a number");
                    }
                    if at == now_ms {
                        if before != valid.first().copied() {
                            over.extend(before);
                        }
                        before = valid.first().copied();
                    }
                }
            }
        }
    }
}
