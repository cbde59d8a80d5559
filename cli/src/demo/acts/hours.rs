//! Hours: epochs in which every node proves that it has everything, and a false accusation that an honest node answers.

use super::{PATIENCE, Play, STORAGE, World, name_of};
use crate::commands::query::write_json;
use crate::demo::cast::Node;
use crate::demo::report::Proof;
use crate::demo::story::{Story, round};
use crate::error::{Context, Failure, Result};
use crate::output;
use alloy::providers::Provider as _;
use fluence_bindings::{Chain, Connection};
use fluence_client::Transport;
use fluence_node::arbiter::judge::Case;
use fluence_node::arbiter::ledger::{Entry, Ledger};
use fluence_types::proof::{PROOF_FILE_FORMAT, ProofContext, ProofFile};
use fluence_types::statement::Storage;
use fluence_types::{Epoch, NodeId};
use fluence_verifier::groth16;
use fluence_verifier::proof_file::{CURVE, PROTOCOL};
use fluence_wire::message::ProvedStorage;
use fluence_wire::{Request, Response};
use rand::RngCore;
use rand::rngs::OsRng;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

impl Play {
    pub(super) async fn hours(&mut self, story: &mut Story, world: &World) -> Result<Epoch> {
        story.act(
            "Hours",
            "Each epoch the chain's beacon picks 16 cells of everything a node owes; it proves that it has them. The arbiter checks all
proofs in one batch. (Chain time is advanced, so an hour takes seconds.)",
        );
        let mut epoch = Epoch(0);
        for root in world.chain.root_events(0).await.doing("registrations cannot be read")? {
            epoch = epoch.max(root.from);
        }
        let everyone: Vec<NodeId> = self.nodes.iter().map(|n| n.id).collect();
        for i in 0..self.args.epochs {
            if i > 0 {
                epoch.0 += 1;
            }
            story.begin(&format!("epoch {epoch}"));
            self.advance_to(world, epoch).await?;
            let entries = self.accepted(epoch, &everyone).await?;
            let (slowest, proofs) = self.collect(story, world, epoch, &entries).await?;
            story.fact("proofs", proofs);
            story.end(format!(
                "epoch {epoch}: the arbiter accepted {proofs} storage proofs (the slowest took {slowest:.1} s to prove)"
            ));
        }
        self.false_accusation(story, world, epoch).await?;
        Ok(epoch)
    }

    /// Someone challenges an honest node: it answers on chain with its proof, and keeps everything.
    async fn false_accusation(&mut self, story: &mut Story, world: &World, epoch: Epoch) -> Result<()> {
        story.begin("false accusation");
        let (name, id) = (self.nodes[0].name.clone(), self.nodes[0].id);
        let key = self.anvil().keys().get(1).ok_or_else(|| Failure::failed("anvil has one account only"))?.clone();
        let accuser = Connection::new(self.anvil().rpc_url(), Some(&key.0)).doing("cannot connect to the chain")?;
        let accuser =
            Chain::open(accuser, world.chain.deployment().clone()).await.doing("the chain does not answer")?;
        let mut salt = [0; 32];
        OsRng.fill_bytes(&mut salt);
        let (challenge, sent) =
            accuser.challenge(&id, epoch, None, 0, salt).await.doing("an honest node cannot be challenged")?;
        let begun = Instant::now();
        let answered = loop {
            self.check()?;
            let events = world.chain.answered_events(sent.block).await.doing("answers cannot be read")?;
            if let Some(event) = events.iter().find(|e| e.id == challenge) {
                break *event;
            }
            if begun.elapsed() > PATIENCE {
                return Err(Failure::failed(format!("{name} did not answer a challenge")));
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        };
        let (tx, gas) = self.transaction_of(world, answered.block, &answered.responder).await?;
        let file = format!("storage-epoch{epoch}-{name}.json");
        if let Some(proof) = story.report.proofs.iter_mut().find(|p| p.file == file) {
            (proof.gas, proof.tx) = (Some(gas), Some(tx.clone()));
        }
        story.fact("tx", tx);
        story.fact("gas", gas);
        story.end(format!(
            "{name} is challenged though it proved: it posts the proof on chain ({} gas), and keeps its collateral",
            output::count(gas)
        ));
        Ok(())
    }

    /// The transaction that an account sent in a block, and its gas, calldata included.
    async fn transaction_of(&self, world: &World, block: u64, from: &fluence_types::Address) -> Result<(String, u64)> {
        let provider = world.chain.connection().provider();
        let found =
            provider.get_block_receipts(block.into()).await.doing("a block cannot be read")?.unwrap_or_default();
        let sender = alloy::primitives::Address::from(from.to_bytes());
        let receipt = found.iter().find(|r| r.from == sender);
        let receipt =
            receipt.ok_or_else(|| Failure::failed(format!("block {block} holds no transaction of {from}")))?;
        Ok((receipt.transaction_hash.to_string(), receipt.gas_used))
    }

    /// Mines until an epoch has begun and its beacon is known.
    pub(super) async fn advance_to(&self, world: &World, epoch: Epoch) -> Result<()> {
        let deployment = world.chain.deployment();
        let start = deployment.start_block + epoch.0 * deployment.params.epoch_blocks;
        let head = world.chain.connection().block_number().await.doing("the chain does not answer")?;
        if head <= start {
            self.anvil().mine(start + 1 - head).await.doing("the chain cannot be advanced")?;
        }
        Ok(())
    }

    /// Waits until the arbiter accepted the proofs of `nodes`.
    pub(super) async fn accepted(&mut self, epoch: Epoch, nodes: &[NodeId]) -> Result<BTreeMap<NodeId, Entry>> {
        let is_in =
            |e: &&Entry| e.subject.epoch == epoch && e.case == Case::Accepted && nodes.contains(&e.subject.node);
        let begun = Instant::now();
        loop {
            self.check()?;
            let entries = self.ledger()?;
            if let Some(bad) = entries.iter().find(|e| {
                let fine = matches!(e.case, Case::Waiting { .. } | Case::Accepted);
                e.subject.epoch == epoch && nodes.contains(&e.subject.node) && !fine
            }) {
                return Err(Failure::failed(format!("an honest node was not believed in epoch {epoch}"))
                    .because(format!("{bad:?}")));
            }
            let found: BTreeMap<NodeId, Entry> =
                entries.iter().filter(is_in).map(|e| (e.subject.node, e.clone())).collect();
            if found.len() == nodes.len() {
                return Ok(found);
            }
            if begun.elapsed() > PATIENCE {
                let why = format!(
                    "{} of {} nodes proved epoch {epoch} within {} s",
                    found.len(),
                    nodes.len(),
                    PATIENCE.as_secs()
                );
                return Err(Failure::failed(why)
                    .help("the logs say what the nodes are doing; a slower machine needs more time"));
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }

    /// The arbiter's ledger so far.
    pub(super) fn ledger(&self) -> Result<Vec<Entry>> {
        let path = self.arbiter.as_ref().expect("the arbiter is started with the nodes").ledger();
        if path.exists() { Ledger::read(&path).doing("the arbiter's ledger cannot be read") } else { Ok(Vec::new()) }
    }

    /// Fetches the proofs of an epoch, checks each against what the chain says is owed, and keeps them. Returns the slowest and their number.
    pub(super) async fn collect(
        &self,
        story: &mut Story,
        world: &World,
        epoch: Epoch,
        entries: &BTreeMap<NodeId, Entry>,
    ) -> Result<(f64, usize)> {
        let mut slowest = 0f64;
        for node in self.nodes.iter().filter(|n| entries.contains_key(&n.id)) {
            let proved = self.epoch_proof(world, node, epoch).await?;
            let (root, total_cells) = world
                .chain
                .holdings(&node.id, epoch)
                .await
                .doing("the chain does not say what is owed")?
                .ok_or_else(|| Failure::failed(format!("{} owes nothing in epoch {epoch}", node.name)))?;
            let parts = world.chain.seed_parts(&node.id, epoch, 0).await.doing("the chain does not say the beacon")?;
            let statement = Storage { root, total_cells, seed: fluence_crypto::seed::storage_seed(&parts) };
            let begun = Instant::now();
            groth16::verify(&world.storage.vk, &statement.public_inputs(), &proved.proof)
                .refused(format!("the storage proof of {} does not hold", node.name))?;
            let verify_ms = begun.elapsed().as_secs_f64() * 1e3;
            let file = ProofFile {
                format: PROOF_FILE_FORMAT.to_owned(),
                curve: CURVE.to_owned(),
                protocol: PROTOCOL.to_owned(),
                circuit: STORAGE,
                fingerprint: world.storage.vk.fingerprint(),
                insecure_dev_key: world.storage.insecure_dev,
                public_inputs: statement.public_inputs().to_vec(),
                context: ProofContext::Storage { seed: parts },
                proof: proved.proof,
                verification_key: world.storage.vk.to_hex(),
            };
            let path = self.dir.join(format!("storage-epoch{epoch}-{}.json", node.name));
            write_json(&path, &file)?;
            let prove_seconds = proved.prove_ms as f64 / 1e3;
            slowest = slowest.max(prove_seconds);
            story.report.proofs.push(Proof {
                file: name_of(&path),
                statement: "storage".to_owned(),
                shape: STORAGE.to_string(),
                constraints: proved.constraints,
                prove_seconds,
                verify_ms: round(verify_ms),
                bytes: proved.proof.0.len() as u64,
                gas: None,
                tx: None,
            });
        }
        Ok((slowest, entries.len()))
    }

    async fn epoch_proof(&self, world: &World, node: &Node, epoch: Epoch) -> Result<ProvedStorage> {
        let request = Request::EpochProof { epoch, proof_index: 0, db: None };
        match world.dialer.request(&node.id, request).await.doing(format!("{} does not answer", node.name))? {
            Response::EpochProof(proved) => Ok(*proved),
            other => {
                Err(Failure::failed(format!("{} gave no proof of epoch {epoch}", node.name))
                    .because(format!("{other:?}")))
            }
        }
    }
}
