//! Who keeps the database: what the owner asks for, and what the members agree to.
//!
//! Rule    an owner's operation is a wish. A seat changes only by the votes of a quorum of the members, from the next epoch on, one
//!         newcomer proven before it counts. In an epoch at most f seats change, and none in its last blocks, so that the block that
//!         ends it carries the final committee.
//! Source  DESIGN section 7

use crate::state::{Cluster, Head};
use fluence_crypto::sign::verify_seat;
use fluence_crypto::vote::{members_hash, verify_member};
use fluence_types::block::{Member, Members, epoch_of, position};
use fluence_types::codec::Bounded;
use fluence_types::limits::{EPOCH_BLOCKS, EXECUTION_LAG_MAX};
use fluence_types::op::{ClusterChange, OpOutcome, OpRefusal, SeatChange};
use fluence_types::{Address, Height, NodeId};

fn refused(why: impl std::fmt::Display) -> OpRefusal {
    OpRefusal::Cluster(why.to_string())
}

/// Seats that may change in one epoch: f of 3f + 1, and one in a cluster too small to have an f.
pub(crate) fn changes_max(members: usize) -> u16 {
    u16::try_from((members.saturating_sub(1) / 3).max(1)).unwrap_or(1)
}

/// Whether a seat may still change in the epoch of `height`.
pub(crate) fn seats_open(height: Height) -> bool {
    EPOCH_BLOCKS - 1 - height.0 % EPOCH_BLOCKS >= EXECUTION_LAG_MAX
}

fn newcomer(next: &Members, member: &Member) -> Result<(), OpRefusal> {
    if position(next, &member.node).is_some() {
        return Err(refused(format!("node {} is a member already", member.node)));
    }
    verify_member(member).map_err(refused)
}

fn leaver(next: &Members, node: &NodeId) -> Result<usize, OpRefusal> {
    position(next, node).ok_or_else(|| refused(format!("node {node} is no member")))
}

/// What the owner asks for.
pub(crate) fn wish(head: &mut Head, signer: Address, change: &ClusterChange) -> OpOutcome {
    if signer != head.owner {
        return Err(OpRefusal::NotAllowed(signer));
    }
    let Cluster { next, wish, standby, .. } = &mut head.cluster;
    match change {
        ClusterChange::Join(member) => newcomer(next, member)?,
        ClusterChange::Leave(node) => {
            leaver(next, node)?;
            if next.len() == 1 {
                return Err(refused("the last member cannot leave"));
            }
        }
        ClusterChange::Replace { out, with } => {
            leaver(next, out)?;
            newcomer(next, with)?;
        }
        ClusterChange::Standby(nodes) => {
            for (i, node) in nodes.iter().enumerate() {
                newcomer(next, node)?;
                if nodes[..i].iter().any(|n| n.node == node.node) {
                    return Err(refused(format!("node {} waits twice", node.node)));
                }
            }
            *standby = nodes.clone();
            return Ok(());
        }
        ClusterChange::Cancel => {
            *wish = None;
            return Ok(());
        }
        _ => return Err(OpRefusal::Malformed("a change that this version does not know".to_owned())),
    }
    *wish = Some(change.clone());
    Ok(())
}

/// What the members agreed to.
pub(crate) fn seat(head: &mut Head, height: Height, change: &SeatChange) -> OpOutcome {
    let seat = &change.seat;
    let epoch = epoch_of(height);
    if seat.epoch != epoch {
        return Err(refused(format!("voted in epoch {}, this is {epoch}", seat.epoch)));
    }
    if !seats_open(height) {
        return Err(refused(format!("epoch {epoch} ends; vote again in the next")));
    }
    let max = changes_max(head.members.len());
    if head.cluster.changed >= max {
        return Err(refused(format!("{max} seats changed in epoch {epoch} already")));
    }
    verify_seat(change, &head.members).map_err(refused)?;
    let mut next = head.cluster.next.to_vec();
    if let Some(out) = &seat.out {
        next.remove(leaver(&head.cluster.next, out)?);
    }
    if let Some(join) = &seat.join {
        newcomer(&head.cluster.next, join)?;
        let at = next.partition_point(|m| m.node < join.node);
        next.insert(at, join.clone());
    }
    if next.is_empty() || (seat.out.is_none() && seat.join.is_none()) {
        return Err(refused("a seat change that changes nothing, or leaves nobody"));
    }
    let next: Members = next.try_into().map_err(refused)?;
    let next_hash = members_hash(&next).map_err(refused)?;
    let cluster = &mut head.cluster;
    (cluster.next, cluster.next_hash, cluster.changed) = (next, next_hash, cluster.changed + 1);
    if cluster.wish.as_ref().is_some_and(|wish| came_true(wish, &cluster.next)) {
        cluster.wish = None;
    }
    let waiting = cluster.standby.iter().filter(|s| position(&cluster.next, &s.node).is_none());
    cluster.standby = Bounded::new(waiting.cloned().collect()).expect("no more than there were");
    Ok(())
}

fn came_true(wish: &ClusterChange, next: &Members) -> bool {
    let is_member = |node: &NodeId| position(next, node).is_some();
    match wish {
        ClusterChange::Join(member) => is_member(&member.node),
        ClusterChange::Leave(node) => !is_member(node),
        ClusterChange::Replace { out, with } => !is_member(out) && is_member(&with.node),
        _ => true,
    }
}
