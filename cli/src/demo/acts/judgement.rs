//! Judgement: the damaged node cannot prove, is challenged and slashed; balances from the chain's events.

use super::{FLU, PATIENCE, Play, World};
use crate::demo::cast::GRACE_BLOCKS;
use crate::demo::report::Balance;
use crate::demo::story::Story;
use crate::error::{Context, Failure, Result};
use fluence_node::arbiter::judge::Case;
use fluence_node::arbiter::ledger::Entry;
use fluence_types::{Epoch, NodeId};
use std::time::{Duration, Instant};

impl Play {
    pub(super) async fn judgement(
        &mut self,
        story: &mut Story,
        world: &World,
        epoch: Epoch,
        chosen: usize,
    ) -> Result<()> {
        let (name, id) = (self.nodes[chosen].name.clone(), self.nodes[chosen].id);
        story.act(
            "Judgement",
            &format!("The next epoch. {name} owes the same as before: a damaged disk changes nothing of it."),
        );
        story.begin(&format!("epoch {epoch}"));
        self.advance_to(world, epoch).await?;
        let honest: Vec<NodeId> = self.nodes.iter().map(|n| n.id).filter(|n| *n != id).collect();
        let entries = self.accepted(epoch, &honest).await?;
        let (_, proofs) = self.collect(story, world, epoch, &entries).await?;
        story.end(format!("the other {proofs} prove, and {name} cannot"));

        story.begin("challenge");
        self.anvil().mine(GRACE_BLOCKS).await.doing("the chain cannot be advanced")?;
        let challenged =
            self.await_case(epoch, id, |c| matches!(c, Case::Challenged { .. } | Case::Expired { .. })).await?;
        let deadline = match &challenged.case {
            Case::Challenged { deadline, .. } => *deadline,
            _ => 0,
        };
        story.fact("deadline", deadline);
        story.end(format!(
            "the arbiter challenged {name} on chain: anyone may post a valid proof until block {deadline}; nobody can"
        ));

        story.begin("slash");
        let head = world.chain.connection().block_number().await.doing("the chain does not answer")?;
        self.anvil().mine((deadline + 1).saturating_sub(head).max(1)).await.doing("the chain cannot be advanced")?;
        self.await_case(epoch, id, |c| matches!(c, Case::Closed)).await?;
        let slashed = world.chain.slashed_events(0).await.doing("slashes cannot be read")?;
        let event = slashed.first().ok_or_else(|| Failure::failed("nobody was slashed"))?;
        story.fact("burned", event.burned.to_string());
        story.fact("to_harmed", event.to_harmed.to_string());
        story.fact("to_challenger", event.to_challenger.to_string());
        story.end(format!(
            "the deadline passed: {} slashed, {} burned, {} to the owner, {} to the arbiter",
            flu(event.before - event.after),
            flu(event.burned),
            flu(event.to_harmed),
            flu(event.to_challenger),
        ));
        if slashed.iter().any(|s| s.node != id) {
            return Err(Failure::failed("a node that was not damaged was slashed").because(format!("{slashed:?}")));
        }
        Ok(())
    }

    /// Waits until the arbiter's case against a node satisfies `until`.
    async fn await_case(&mut self, epoch: Epoch, node: NodeId, until: impl Fn(&Case) -> bool) -> Result<Entry> {
        let begun = Instant::now();
        loop {
            self.check()?;
            let of = |e: &&Entry| e.subject.epoch == epoch && e.subject.node == node;
            let last = self.ledger()?.iter().rfind(of).cloned();
            if let Some(entry) = last.as_ref().filter(|e| until(&e.case)) {
                return Ok(entry.clone());
            }
            if begun.elapsed() > PATIENCE {
                return Err(
                    Failure::failed("the arbiter did not act in time").because(format!("its last word: {last:?}"))
                );
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }

    /// Collateral before and after, from the chain's events alone.
    pub(super) async fn balances(&mut self, story: &mut Story, world: &World) -> Result<()> {
        story.act("Balances", "Collateral, summed up from the chain's events.");
        story.begin("balances");
        self.check()?;
        let deposits = world.chain.deposited_events(0).await.doing("deposits cannot be read")?;
        let slashes = world.chain.slashed_events(0).await.doing("slashes cannot be read")?;
        for node in &self.nodes {
            let before: u128 = deposits.iter().filter(|d| d.node == node.id).map(|d| d.amount).sum();
            let taken: u128 =
                slashes.iter().filter(|s| s.node == node.id).map(|s| s.burned + s.to_harmed + s.to_challenger).sum();
            let after =
                before.checked_sub(taken).ok_or_else(|| Failure::failed("more was slashed than was deposited"))?;
            let held = world.chain.collateral(&node.id).await.doing("collateral cannot be read")?;
            if held.free + held.locked + held.thawing != after {
                return Err(Failure::failed(format!("events say {after}, the contract {held:?}")));
            }
            let mark = if taken > 0 { story.out().red("slashed") } else { "".to_owned() };
            story.tell(format!("{}  before {:>8}   after {:>8}  {mark}", node.name, flu(before), flu(after)));
            let balance = Balance { before: before.to_string(), after: after.to_string() };
            story.report.balances.insert(node.id.to_string(), balance);
        }
        story.report.slashed = slashes.iter().map(|s| s.node.to_string()).collect();
        let names: Vec<&str> =
            self.nodes.iter().filter(|n| slashes.iter().any(|s| s.node == n.id)).map(|n| n.name.as_str()).collect();
        if story.report.slashed != story.report.damaged.iter().cloned().collect::<Vec<_>>() {
            return Err(
                Failure::failed("the slashed node is not the damaged one").because(format!("slashed {names:?}"))
            );
        }
        story.end(if names.is_empty() {
            "nobody was slashed".to_owned()
        } else {
            format!("slashed: {}, and nobody else", names.join(", "))
        });
        Ok(())
    }
}

/// An amount of FLU for people.
fn flu(amount: u128) -> String {
    let (whole, part) = (amount / FLU, amount % FLU / (FLU / 100));
    if part == 0 { format!("{whole} FLU") } else { format!("{whole}.{part:02} FLU") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_read_as_flu() {
        assert_eq!(flu(1000 * FLU), "1000 FLU");
        assert_eq!(flu(FLU / 4), "0.25 FLU");
    }
}
