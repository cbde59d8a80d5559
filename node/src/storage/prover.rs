//! Proofs of a node: keys loaded once, witnesses from the engine, proofs within the limits that the operator set.
//!
//! Rule    a key that was made on one machine is refused on any chain but a local one: whoever made it can forge.
//! Stop    proofs run on threads of their own, so that a stop does not wait for one.

use crate::config::ProvingConfig;
use fluence_circuits::{RangeSumCircuit, StorageCircuit};
use fluence_engine::{Engine, View, WitnessError};
use fluence_prover::{KeyError, Keys, Phase, Scheduler};
use fluence_types::answer::{OpenRefusal, Snapshot};
use fluence_types::block::Certificate;
use fluence_types::shape::{CircuitId, RangeSumShape, StorageShape};
use fluence_types::statement::{RangeSumQuery, Storage};
use fluence_types::{DatabaseId, DbRoot, Epoch, SegmentRoot};
use fluence_wire::message::{ProvedRangeSum, ProvedStorage};
use std::collections::{BTreeSet, HashMap};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;
use tokio::sync::{Semaphore, oneshot};

/// How long a range sum waits for its turn.
const TURN: Duration = Duration::from_secs(30);
/// Lost pages that reads say in the log, each once.
const LOST_SAID_MAX: usize = 1024;

/// Why there is no proof.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ProveError {
    /// No key, or one that may not be used.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// The folder has no key, and the node does not make any.
    #[error("no key for {circuit} at {path}; put one there, or set proving.make_dev_keys on a local chain")]
    NoKey {
        /// The circuit.
        circuit: CircuitId,
        /// Where it was looked for.
        path: PathBuf,
    },
    /// A key that was made on one machine, on a chain that is not local.
    #[error("the key of {0} is an insecure development key; it is refused on chain {1}")]
    DevKey(CircuitId, u64),
    /// The engine has no witness: lost data, another root, a tree too high for the circuit.
    #[error(transparent)]
    Witness(#[from] WitnessError),
    /// No circuit has room for so many live segments.
    #[error("{0} live segments; compact first")]
    NoShape(usize),
    /// The prover failed.
    #[error(transparent)]
    Prover(#[from] fluence_prover::ProveError),
    /// Other proofs come first.
    #[error("other proofs come first")]
    Busy,
    /// The proving thread ended early.
    #[error("the proof was given up")]
    GivenUp,
}

/// Makes proofs from an engine.
pub struct Prover {
    engine: Arc<Engine>,
    config: ProvingConfig,
    shape: StorageShape,
    /// The chain that proofs are for; none: any key will do, nothing depends on it.
    chain_id: Option<u64>,
    keys: Mutex<HashMap<CircuitId, Arc<Keys>>>,
    range_sums: Semaphore,
    /// Starts its threads when somebody first asks for it.
    scheduler: OnceLock<Scheduler>,
    lost_said: Mutex<BTreeSet<(SegmentRoot, u64)>>,
}

impl Prover {
    /// A prover; keys are loaded when they are first needed.
    #[must_use]
    pub fn new(engine: Arc<Engine>, config: ProvingConfig, shape: StorageShape, chain_id: Option<u64>) -> Self {
        let range_sums = Semaphore::new(config.range_sums_at_once.max(1) as usize);
        let (keys, scheduler, lost_said) = (Mutex::default(), OnceLock::new(), Mutex::default());
        Self { engine, config, shape, chain_id, keys, range_sums, scheduler, lost_said }
    }

    /// A read was refused: where the reason is a lost page, the log says so once, and the gauge counts it.
    pub(super) fn note_lost(&self, refusal: &OpenRefusal) {
        let OpenRefusal::Lost { segment, page } = refusal else { return };
        {
            let mut said = self.lost_said.lock().unwrap_or_else(PoisonError::into_inner);
            if said.len() < LOST_SAID_MAX && said.insert((*segment, *page)) {
                tracing::error!(%segment, page, "LOST: a stored page cannot be read back");
            }
        }
        let databases = self.engine.databases();
        let lost = databases.iter().filter_map(|db| Some(self.engine.view(*db).ok()?.summary().lost_pages));
        metrics::gauge!("fluence_store_lost_pages").set(lost.sum::<u64>() as f64);
    }

    /// Who proves when; it can be paused.
    #[must_use]
    pub fn scheduler(&self) -> &Scheduler {
        self.scheduler.get_or_init(|| Scheduler::new(self.config.limits()))
    }

    /// The engine that is proven from.
    #[must_use]
    pub const fn engine(&self) -> &Arc<Engine> {
        &self.engine
    }

    /// The storage shape that proofs are made in.
    #[must_use]
    pub const fn shape(&self) -> StorageShape {
        self.shape
    }

    /// The keys of a circuit. Blocking: loading takes seconds, making them longer.
    ///
    /// # Errors
    /// [`ProveError`] where there is none that may be used.
    pub fn keys(&self, circuit: CircuitId) -> Result<Arc<Keys>, ProveError> {
        // Held while loading, so that a key is loaded once.
        let mut all = self.keys.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(keys) = all.get(&circuit) {
            return Ok(Arc::clone(keys));
        }
        let path = Keys::path(&self.config.keys_dir, circuit);
        if !self.config.make_dev_keys && !path.exists() {
            return Err(ProveError::NoKey { circuit, path });
        }
        let keys = Keys::load_or_setup(&self.config.keys_dir, circuit, |phase| match phase {
            Phase::Setup => tracing::warn!(%circuit, "making an insecure development key"),
            phase => tracing::debug!(%circuit, ?phase, "proving key"),
        })?;
        if let Some(chain) = self.chain_id.filter(|id| keys.insecure_dev && !is_local(*id)) {
            return Err(ProveError::DevKey(circuit, chain));
        }
        let keys = Arc::new(keys.with_path(self.config.prover.path()));
        all.insert(circuit, Arc::clone(&keys));
        Ok(keys)
    }

    /// Proves a storage statement about databases in id order, each at a root it has or had.
    ///
    /// # Errors
    /// [`ProveError`]; lost data is [`OpenRefusal::Lost`] inside.
    pub async fn storage(
        self: &Arc<Self>,
        databases: Vec<(DatabaseId, DbRoot)>,
        epoch: Epoch,
        statement: Storage,
    ) -> Result<ProvedStorage, ProveError> {
        let prover = Arc::clone(self);
        on_a_thread("prove-storage", move || {
            let witness = timed("fluence_witness_seconds", "storage", || {
                prover.engine.storage_witness_at(&databases, &statement, prover.shape)
            });
            if let Err(WitnessError::Open(refusal)) = &witness {
                prover.note_lost(refusal);
            }
            let witness = witness?;
            let keys = prover.keys(CircuitId::Storage(prover.shape))?;
            let circuit = StorageCircuit::new(prover.shape, statement, witness);
            let proved = timed("fluence_prove_seconds", "storage", || {
                prover.scheduler().prove_storage(&keys, circuit, &mut |phase| {
                    tracing::info!(%epoch, ?phase, "proving storage");
                })
            })?;
            Ok(ProvedStorage {
                epoch,
                root: statement.root,
                total_cells: statement.total_cells,
                seed: statement.seed,
                fingerprint: keys.fingerprint,
                proof: proved.proof,
                constraints: proved.constraints as u64,
                prove_ms: proved.ms,
            })
        })
        .await
    }

    /// Proves a range sum at the latest root that is certified; `certified` gives a state at it, with the certificate.
    ///
    /// # Errors
    /// [`ProveError`].
    pub async fn range_sum(
        self: &Arc<Self>,
        query: RangeSumQuery,
        certified: impl for<'e> FnOnce(&'e Engine, DatabaseId) -> Result<(View<'e>, Certificate), OpenRefusal>
        + Send
        + 'static,
    ) -> Result<ProvedRangeSum, ProveError> {
        let turn = tokio::time::timeout(TURN, self.range_sums.acquire()).await;
        let _turn = turn.map_err(|_| ProveError::Busy)?.expect("the semaphore is never closed");
        let prover = Arc::clone(self);
        on_a_thread("prove-range-sum", move || {
            // One view for root, witness and certificate: a block in between changes nothing.
            let (view, certificate) = certified(&prover.engine, query.db).map_err(WitnessError::from)?;
            let (witness, statement) =
                timed("fluence_witness_seconds", "range_sum", || view.range_sum_witness(&query))?;
            let live = witness.segments.len();
            let shape = RangeSumShape::for_live(live).ok_or(ProveError::NoShape(live))?;
            let opening = witness.catalogue.clone();
            drop(view);
            let keys = prover.keys(CircuitId::RangeSum(shape))?;
            let circuit = RangeSumCircuit::new(shape, statement, witness);
            let proved =
                timed("fluence_prove_seconds", "range_sum", || prover.scheduler().prove_range_sum(&keys, circuit))?;
            Ok(ProvedRangeSum {
                snapshot: Snapshot { certificate, opening },
                sum: statement.sum,
                query_digest: statement.query_digest,
                shape: [shape.segments, shape.tree_levels],
                fingerprint: keys.fingerprint,
                proof: proved.proof,
                constraints: proved.constraints as u64,
                prove_ms: proved.ms,
            })
        })
        .await
    }
}

/// A chain that lives on one machine.
const fn is_local(chain_id: u64) -> bool {
    matches!(chain_id, 1337 | 31337)
}

fn timed<T>(metric: &'static str, statement: &'static str, f: impl FnOnce() -> T) -> T {
    let started = std::time::Instant::now();
    let value = f();
    metrics::histogram!(metric, "statement" => statement).record(started.elapsed().as_secs_f64());
    value
}

async fn on_a_thread<T: Send + 'static>(
    name: &str,
    f: impl FnOnce() -> Result<T, ProveError> + Send + 'static,
) -> Result<T, ProveError> {
    let (done, result) = oneshot::channel();
    std::thread::Builder::new()
        .name(name.to_owned())
        .spawn(move || drop(done.send(f())))
        .expect("the system can start a thread");
    result.await.map_err(|_| ProveError::GivenUp)?
}

#[cfg(test)]
mod tests {
    use super::*;
    use fluence_engine::store::{Batch, Durability};
    use fluence_engine::testkit::{TestDb, TestSegment, change, commit, define, schema};
    use fluence_engine::{EngineConfig, MemStore, Store, keys};
    use metrics_exporter_prometheus::PrometheusBuilder;

    #[test]
    fn a_page_that_a_read_finds_lost_is_counted() {
        let store: Arc<dyn Store> = Arc::new(MemStore::new());
        let engine = Arc::new(Engine::open(Arc::clone(&store), EngineConfig::default()).unwrap());
        let (mut db, schema) = (TestDb::new(1, 1), schema(1, 1));
        db.create(&engine).unwrap();
        db.act(&engine, define(0, schema.clone())).unwrap().unwrap();
        let segment = TestSegment::new(1, &schema, 100, 10);
        db.act(&engine, commit(&[(0, 0)], vec![change(0, vec![segment.inline()], vec![])])).unwrap().unwrap();
        let mut batch = Batch::new();
        batch.put(keys::Cf::Pages, keys::page(db.db, segment.root(), 0), vec![0; 64]);
        store.commit(batch, Durability::Synced).unwrap();
        let refusal = engine.view(db.db).unwrap().header(segment.root()).unwrap_err();
        assert!(matches!(refusal, OpenRefusal::Lost { page: 0, .. }), "{refusal}");

        let prover = Prover::new(engine, ProvingConfig::default(), StorageShape::TINY, None);
        let recorder = PrometheusBuilder::new().build_recorder();
        let shown = recorder.handle();
        metrics::with_local_recorder(&recorder, || {
            prover.note_lost(&OpenRefusal::UnknownDatabase(db.db));
            assert!(!shown.render().contains("lost_pages"));
            prover.note_lost(&refusal);
        });
        assert!(shown.render().contains("fluence_store_lost_pages 1"), "{}", shown.render());
        assert_eq!(prover.lost_said.lock().unwrap().len(), 1);
    }
}
