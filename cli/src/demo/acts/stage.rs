//! The stage: proving keys, the chain with the contracts, four nodes and an arbiter.

use super::{DEPOSIT, FLU, GAS_MONEY, Key, NODES, Play, RANGE_SUM, STORAGE, World};
use crate::commands::query::{key_file_name, write_json};
use crate::demo::cast::{Arbiter, Node};
use crate::demo::story::Story;
use crate::error::{Context, Help, Result};
use fluence_bindings::anvil::{Anvil, AnvilConfig};
use fluence_bindings::{Chain, ChainParams, Connection, Deployment, VerifierKey, deploy_all};
use fluence_client::dial::{DialOptions, Dialer};
use fluence_client::{Keyring, Keystore, Session};
use fluence_prover::{Keys, Phase, export_key};
use fluence_types::shape::CircuitId;
use rand::SeedableRng;
use rand::rngs::{OsRng, StdRng};
use std::time::Duration;

impl Play {
    pub(super) async fn set_the_stage(&mut self, story: &mut Story) -> Result<World> {
        story.act(
            "The stage",
            "Proving keys, a real chain with the contracts, four storage nodes and an arbiter over libp2p on loopback.",
        );
        story.begin("keys");
        let storage = self.keys(story, STORAGE).await?;
        let range_sum = self.keys(story, RANGE_SUM).await?;
        story.fact("storage_circuit", STORAGE.to_string());
        story.fact("range_sum_circuit", RANGE_SUM.to_string());
        story.end(format!(
            "keys of {STORAGE} (a smaller shape than production's) and {RANGE_SUM}; made here, so for local chains only"
        ));

        story.begin("chain");
        let (config, path) = (AnvilConfig::new(self.anvil_path.clone()), self.dir.join("deployment.json"));
        // Reading the banner blocks.
        let anvil =
            tokio::task::spawn_blocking(move || Anvil::spawn(&config)).await.expect("starting anvil does not panic");
        let anvil = anvil
            .doing("the local chain does not start")
            .or_help("FLUENCE_ANVIL names another binary; 1.x is needed")?;
        self.memory.add(anvil.process_id());
        let from = Connection::new(anvil.rpc_url(), Some(&anvil.keys()[0].0)).doing("cannot connect to the chain")?;
        let pin =
            |circuit, key: &Key| VerifierKey { circuit, key: key.vk.to_eip2537(), insecure_dev: key.insecure_dev };
        let keys = [pin(STORAGE, &storage), pin(RANGE_SUM, &range_sum)];
        let deployment: Deployment =
            deploy_all(&from, &ChainParams::LOCAL, &keys).await.doing("the contracts cannot be deployed")?;
        deployment.write(&path).doing("cannot write the deployment file")?;
        let rpc_url = anvil.rpc_url().to_owned();
        self.anvil = Some(anvil);
        let chain = Chain::open(from, deployment).await.doing("the contracts do not answer")?;
        let contract = chain.deployment().epoch_proofs;
        story.fact("rpc_url", rpc_url.clone());
        story.fact("epoch_proofs", contract.to_string());
        story.end(format!("anvil at {rpc_url}; contracts deployed, EpochProofs at {contract}"));

        story.begin("nodes");
        let stage = self.stage();
        for i in 1..=NODES {
            self.nodes.push(Node::prepare(&stage, &format!("node-{i}"))?);
        }
        for node in &mut self.nodes {
            node.start(&self.memory).await?;
        }
        for i in 0..self.nodes.len() {
            self.join(&chain, i, &stage.rpc_url).await?;
        }
        let arbiter = self.arbiter.insert(Arbiter::prepare(&stage)?);
        self.anvil
            .as_ref()
            .expect("just started")
            .fund(&arbiter.operator.address, GAS_MONEY)
            .await
            .doing("cannot fund the arbiter")?;
        arbiter.start(&self.nodes, &self.memory).await?;
        for node in &self.nodes {
            story.tell(format!("{}  {}  {} FLU of collateral", node.name, node.id, DEPOSIT / FLU));
        }
        story.end("four nodes registered on chain with their collateral, and one arbiter");

        let dialer = Dialer::start(DialOptions::default()).doing("cannot start the network")?;
        for node in &self.nodes {
            dialer.add_address(&node.id, node.address()).doing("a node's address cannot be used")?;
        }
        let keystore = Keystore::in_memory(Keyring::generate(&mut OsRng));
        let rng = StdRng::from_rng(OsRng).doing("the system gives no randomness")?;
        let session = Session::new(dialer.clone(), keystore, rng);
        Ok(World { chain, session, dialer, storage, range_sum })
    }

    /// Loads or makes a key, and writes its verification key beside the report.
    async fn keys(&self, story: &Story, circuit: CircuitId) -> Result<Key> {
        let bar = story.progress(&format!("{circuit}"), "", 0);
        let (send, mut phases) = tokio::sync::mpsc::unbounded_channel();
        let dir = self.keys_dir.clone();
        let mut made = tokio::task::spawn_blocking(move || {
            // A receiver that is gone only means that nobody looks.
            Keys::load_or_setup(dir, circuit, |phase| {
                let _ = send.send(phase);
            })
            .map(|keys| (export_key(&keys), keys.vk.clone(), keys.insecure_dev))
        });
        let mut tick = tokio::time::interval(Duration::from_secs(1));
        let made = loop {
            tokio::select! {
                made = &mut made => break made.expect("making a key does not panic"),
                Some(phase) = phases.recv() => bar.message(&format!("{circuit}: {}", in_words(phase))),
                _ = tick.tick() => bar.set(0, 0),
            }
        };
        bar.done();
        let (file, vk, insecure_dev) = made.doing(format!("there is no key for {circuit}"))?;
        write_json(&self.dir.join(key_file_name(circuit)), &file)?;
        Ok(Key { vk, insecure_dev })
    }

    /// Registers a node on chain and puts up its collateral.
    pub(super) async fn join(&self, chain: &Chain, i: usize, rpc_url: &str) -> Result<()> {
        let node = &self.nodes[i];
        let operator = node.operator.address;
        self.anvil().fund(&operator, GAS_MONEY).await.doing("cannot fund an operator")?;
        chain.transfer_flu(&operator, DEPOSIT).await.doing("cannot pay an operator")?;
        let theirs = Chain::open(node.operator.connect(rpc_url)?, chain.deployment().clone())
            .await
            .doing("the chain does not answer")?;
        theirs.register_node(&node.id, node.address().as_bytes()).await.doing("a node cannot be registered")?;
        theirs.deposit(&node.id, DEPOSIT).await.doing("a node's collateral cannot be deposited")?;
        Ok(())
    }
}

fn in_words(phase: Phase) -> &'static str {
    match phase {
        Phase::Synthesise => "writing down the constraints",
        Phase::Load => "reading the key",
        Phase::Wait => "waiting for another process that makes it",
        Phase::Setup => "making a development key, once",
        Phase::Save => "keeping the key",
        _ => "working",
    }
}
