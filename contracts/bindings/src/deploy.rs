//! Deploys all contracts, and the file that remembers where they are.
//!
//! Why     registry and collateral name `EpochProofs` and `Equivocation` as their judges before these exist, so their addresses are
//!         computed from the deployer's nonce; each refuses to be built where another is named.

use crate::abi::{
    Checkpoints, Collateral, EpochProofs, Equivocation, FluToken, Groth16Verifier, Holdings, IEpochProofs,
    NodeRegistry, Placement,
};
use crate::connection::Connection;
use crate::error::ChainError;
use alloy::primitives::aliases::U96;
use alloy::primitives::{Bytes, U256};
use alloy::providers::Provider as _;
use fluence_types::Address;
use fluence_types::shape::{CircuitId, StorageShape};
use std::collections::BTreeMap;
use std::path::Path;

/// One FLU in its smallest unit.
const FLU: u128 = 1_000_000_000_000_000_000;
/// The most bytes of a deployment file.
const DEPLOYMENT_BYTES_MAX: u64 = 1 << 16;

/// The protocol's numbers; fixed at deployment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct ChainParams {
    /// Blocks of an epoch.
    pub epoch_blocks: u64,
    /// A registration counts from the first epoch that starts more than this many blocks later.
    pub margin_blocks: u64,
    /// An epoch may be challenged until this many blocks after its start; at least an epoch.
    pub window_blocks: u64,
    /// Blocks from a challenge to its deadline.
    pub response_blocks: u64,
    /// Blocks one proof may take, at most `response_blocks`: a challenge that a node could not answer in time after those opened
    /// before is refused with `QueueFull`.
    pub proof_blocks: u64,
    /// Blocks from thaw to withdrawal; at least window + twice response.
    pub thaw_blocks: u64,
    /// Storage proofs owed each epoch.
    pub proofs_per_epoch: u16,
    /// Collateral for each started page, in 1e-18 FLU.
    pub stake_per_page: u128,
    /// Least collateral for a database, in 1e-18 FLU.
    pub stake_min: u128,
    /// Least bond of a challenge, in wei.
    pub bond_min: u128,
    /// Blocks from a request for members to the one whose hash draws them; at least 1.
    pub seed_blocks: u64,
}

impl ChainParams {
    /// For a local chain on which every transaction is a block: short epochs, 100 FLU a database.
    pub const LOCAL: Self = Self {
        epoch_blocks: 64,
        margin_blocks: 4,
        window_blocks: 128,
        response_blocks: 32,
        proof_blocks: 1,
        thaw_blocks: 192,
        proofs_per_epoch: 1,
        stake_per_page: FLU / 1000,
        stake_min: 100 * FLU,
        bond_min: 10_000_000_000_000_000,
        seed_blocks: 2,
    };
    /// For blocks of 12 seconds: an hour, 10 minutes, a day, half an hour, 48 s a proof, a week; 3 minutes to a draw.
    pub const HOURLY: Self = Self {
        epoch_blocks: 300,
        margin_blocks: 50,
        window_blocks: 7_200,
        response_blocks: 150,
        proof_blocks: 4,
        thaw_blocks: 50_400,
        proofs_per_epoch: 4,
        stake_per_page: FLU / 1000,
        stake_min: 100 * FLU,
        bond_min: 10_000_000_000_000_000,
        seed_blocks: 16,
    };
}

/// A verification key to pin.
#[derive(Clone, Debug)]
pub struct VerifierKey {
    /// The circuit.
    pub circuit: CircuitId,
    /// alpha G1, beta, gamma, delta G2, then one G1 per input and one more, as EIP-2537 points.
    pub key: Vec<u8>,
    /// The key's file says that it was made on one machine; refused on any chain but a local one, where a key must be a ceremony's.
    pub insecure_dev: bool,
}

/// Where the contracts are.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Deployment {
    /// EIP-155 chain id.
    pub chain_id: u64,
    /// First block of epoch 0; no event of ours is older than the token, a few blocks before.
    pub start_block: u64,
    /// Block from which events are read.
    pub first_block: u64,
    /// FluToken.
    pub token: Address,
    /// NodeRegistry.
    pub registry: Address,
    /// Collateral.
    pub collateral: Address,
    /// Holdings.
    pub holdings: Address,
    /// EpochProofs, the contract that seeds and signatures name.
    pub epoch_proofs: Address,
    /// Equivocation, which slashes for conflicting votes.
    pub equivocation: Address,
    /// Checkpoints of clusters.
    pub checkpoints: Address,
    /// Placement of databases onto nodes.
    pub placement: Address,
    /// Groth16Verifier by circuit.
    pub verifiers: BTreeMap<CircuitId, Address>,
    /// The numbers it was deployed with.
    pub params: ChainParams,
    /// The storage circuit.
    pub storage: CircuitId,
}

impl Deployment {
    /// Reads a deployment file.
    ///
    /// # Errors
    /// [`ChainError::Setup`] for a file that is missing, above 64 KiB or malformed.
    pub fn read(path: &Path) -> Result<Self, ChainError> {
        let setup =
            |why: String| ChainError::Setup { what: "deployment file", why: format!("{}: {why}", path.display()) };
        let size = std::fs::metadata(path).map_err(|e| setup(e.to_string()))?.len();
        if size > DEPLOYMENT_BYTES_MAX {
            return Err(setup(format!("{size} bytes, the limit is {DEPLOYMENT_BYTES_MAX}")));
        }
        let text = std::fs::read_to_string(path).map_err(|e| setup(e.to_string()))?;
        serde_json::from_str(&text).map_err(|e| setup(e.to_string()))
    }

    /// Writes the deployment file.
    ///
    /// # Errors
    /// [`ChainError::Setup`] where the file cannot be written.
    pub fn write(&self, path: &Path) -> Result<(), ChainError> {
        let text = serde_json::to_string_pretty(self).expect("strings and numbers are JSON");
        std::fs::write(path, text + "\n")
            .map_err(|e| ChainError::Setup { what: "deployment file", why: format!("{}: {e}", path.display()) })
    }
}

/// Deploys token, verifiers, holdings hasher, registry, collateral, epoch proofs, equivocation, checkpoints and placement. The sender gets the whole supply of FLU.
///
/// # Errors
/// [`ChainError::Setup`] where `keys` has not exactly one storage circuit; [`ChainError::Refused`] where a constructor reverts, as
/// for a dev key on a chain that is not local, or on a chain without the precompiles.
pub async fn deploy_all(
    from: &Connection,
    params: &ChainParams,
    keys: &[VerifierKey],
) -> Result<Deployment, ChainError> {
    let deployer = from.sender()?;
    let provider = from.provider();
    let mut storage = None;
    for key in keys {
        if let CircuitId::Storage(shape) = key.circuit
            && storage.replace(shape).is_some()
        {
            return Err(ChainError::Setup { what: "verification keys", why: "more than one storage circuit".into() });
        }
    }
    let shape = storage
        .ok_or_else(|| ChainError::Setup { what: "verification keys", why: "no storage circuit among them".into() })?;
    let first_block = from.block_number().await?;

    let token = from.deploy("deploy FluToken", FluToken::deploy_builder(provider, deployer)).await?.0;
    let holdings = from.deploy("deploy Holdings", Holdings::deploy_builder(provider)).await?.0;
    let mut verifiers = BTreeMap::new();
    for key in keys {
        let call = Groth16Verifier::deploy_builder(provider, Bytes::from(key.key.clone()), key.insecure_dev);
        let address = from.deploy("deploy Groth16Verifier", call).await?.0;
        if verifiers.insert(key.circuit, address).is_some() {
            return Err(ChainError::Setup { what: "verification keys", why: format!("{} twice", key.circuit) });
        }
    }
    let nonce = provider.get_transaction_count(deployer).await.map_err(|e| ChainError::from_transport("deploy", e))?;
    let (judge, vote_judge) = (deployer.create(nonce + 2), deployer.create(nonce + 3));
    let registry =
        from.deploy("deploy NodeRegistry", NodeRegistry::deploy_builder(provider, judge, vote_judge)).await?.0;
    let call = Collateral::deploy_builder(provider, token, registry, judge, vote_judge, params.thaw_blocks);
    let collateral = from.deploy("deploy Collateral", call).await?.0;
    let storage_verifier = verifiers[&CircuitId::Storage(shape)];
    let range_sums = range_sum_circuits(&verifiers)?;
    let call = EpochProofs::deploy_builder(
        provider,
        registry,
        collateral,
        holdings,
        storage_verifier,
        range_sums,
        solidity_params(params, shape)?,
    );
    let (epoch_proofs, start_block) = from.deploy("deploy EpochProofs", call).await?;
    let call = Equivocation::deploy_builder(provider, registry, collateral);
    let equivocation = from.deploy("deploy Equivocation", call).await?.0;
    let checkpoints = from.deploy("deploy Checkpoints", Checkpoints::deploy_builder(provider)).await?.0;
    let call =
        Placement::deploy_builder(provider, registry, collateral, params.seed_blocks, U256::from(params.stake_min));
    let placement = from.deploy("deploy Placement", call).await?.0;
    let ours = |a: alloy::primitives::Address| Address::from_bytes(a.into_array());
    Ok(Deployment {
        chain_id: from.chain_id().await?,
        start_block,
        first_block,
        token: ours(token),
        registry: ours(registry),
        collateral: ours(collateral),
        holdings: ours(holdings),
        epoch_proofs: ours(epoch_proofs),
        equivocation: ours(equivocation),
        checkpoints: ours(checkpoints),
        placement: ours(placement),
        verifiers: verifiers.into_iter().map(|(c, a)| (c, ours(a))).collect(),
        params: *params,
        storage: CircuitId::Storage(shape),
    })
}

fn range_sum_circuits(
    verifiers: &BTreeMap<CircuitId, alloy::primitives::Address>,
) -> Result<Vec<IEpochProofs::RangeSumCircuit>, ChainError> {
    let mut out = Vec::new();
    for (circuit, verifier) in verifiers {
        match circuit {
            CircuitId::RangeSum(s) => out.push(IEpochProofs::RangeSumCircuit {
                segments: narrow("segments", s.segments)?,
                treeLevels: narrow("tree levels", s.tree_levels)?,
                verifier: *verifier,
            }),
            CircuitId::Storage(_) => {}
            other => {
                return Err(ChainError::Setup { what: "circuit", why: format!("{other} has no place on chain") });
            }
        }
    }
    Ok(out)
}

fn solidity_params(p: &ChainParams, shape: StorageShape) -> Result<IEpochProofs::Params, ChainError> {
    let u96 = |what, v: u128| U96::try_from(v).map_err(|_| ChainError::OutOfRange { what });
    Ok(IEpochProofs::Params {
        epochBlocks: p.epoch_blocks,
        marginBlocks: p.margin_blocks,
        windowBlocks: p.window_blocks,
        responseBlocks: p.response_blocks,
        proofBlocks: p.proof_blocks,
        proofsPerEpoch: p.proofs_per_epoch,
        shape: IEpochProofs::StorageShape {
            samples: narrow("samples", shape.samples)?,
            holdingsLevels: narrow("holdings levels", shape.holdings_levels)?,
            storedLevels: narrow("stored levels", shape.stored_levels)?,
            treeLevels: narrow("tree levels", shape.tree_levels)?,
        },
        stakePerPage: u96("stake per page", p.stake_per_page)?,
        stakeMin: u96("least stake", p.stake_min)?,
        bondMin: u96("least bond", p.bond_min)?,
    })
}

fn narrow(what: &'static str, value: u32) -> Result<u16, ChainError> {
    u16::try_from(value).map_err(|_| ChainError::OutOfRange { what })
}
