//! A database opened for SQL: its options, its catalogue, and sessions on it.

use crate::commit::{Committer, Counts};
use crate::error::{SqlError, SqlState};
use crate::session::SqlSession;
use crate::sql::catalog::{Catalog, OBJECTS};
use crate::sql::context::{self, Current};
use crate::sql::proofs::Proofs;
use crate::sql::sequence::Sequences;
use crate::store::{ProofKeys, Store};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How a gateway behaves.
#[derive(Clone, Debug)]
pub struct GatewayOptions {
    /// What clients must call the database; `None` takes any name.
    pub database: Option<String>,
    /// Whether filters, limits and aggregates are pushed down. Off, every query runs on all verified rows: for comparison.
    pub pushdown: bool,
    /// Bytes that the planner of one session may hold for sorts, joins and groups.
    pub memory_bytes_max: usize,
    /// Bytes of an answer that are gathered before the first of it goes out: so far, a conflict is tried again unseen.
    pub answer_bytes: usize,
    /// How often a statement outside a transaction block is tried where somebody else commits first.
    pub attempts: u32,
    /// How long what was read of the catalogue is taken without asking whether it has changed. A statement's answer never rests on an old
    /// one: what changed meanwhile is a conflict.
    pub catalog_age_max: Duration,
    /// Keys that succinct proofs must be under; without, `fluence.proof = 'groth16'` is refused.
    pub proof_keys: Option<Arc<dyn ProofKeys>>,
}

impl Default for GatewayOptions {
    fn default() -> Self {
        Self {
            database: None,
            pushdown: true,
            memory_bytes_max: 512 << 20,
            answer_bytes: 16 << 20,
            attempts: 16,
            catalog_age_max: Duration::from_millis(100),
            proof_keys: None,
        }
    }
}

/// A database opened for SQL.
pub struct Gateway {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) options: GatewayOptions,
    pub(crate) sequences: Sequences,
    pub(crate) committer: Arc<Committer>,
    catalog: tokio::sync::Mutex<Option<(Instant, Arc<Catalog>)>>,
}

impl std::fmt::Debug for Gateway {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Gateway")
    }
}

impl Gateway {
    /// A gateway to a database.
    #[must_use]
    pub fn new(store: Arc<dyn Store>, options: GatewayOptions) -> Arc<Self> {
        let (sequences, committer) = (Sequences::default(), Committer::new(Arc::clone(&store)));
        Arc::new(Self { store, options, sequences, committer, catalog: tokio::sync::Mutex::new(None) })
    }

    /// What the sessions' transactions took of the cluster so far.
    #[must_use]
    pub fn counts(&self) -> Counts {
        self.committer.counts()
    }

    /// A session of a user who has shown that he may. `database` is what the client calls it: there is one.
    ///
    /// # Errors
    /// [`SqlError`] where the database cannot be read, or the name is none.
    pub async fn session(self: &Arc<Self>, user: &str, database: &str) -> Result<SqlSession, SqlError> {
        if let Some(served) = &self.options.database
            && served != database
        {
            let shown: String = database.chars().take(128).collect();
            let why = format!("database \"{shown}\" does not exist");
            return Err(SqlError::new(SqlState::UndefinedDatabase, why).hint(format!("this server has \"{served}\"")));
        }
        let named = !database.is_empty() && database.len() <= 128 && database != "information_schema";
        if !named {
            return Err(SqlError::new(SqlState::InvalidName, "a database's name has 1 to 128 bytes"));
        }
        let current = Current { catalog: self.catalog(false).await?, work: Arc::default() };
        let (context, shared) = context::planner(
            database,
            Arc::clone(&self.store),
            current,
            Proofs::new(self.options.proof_keys.clone()),
            self.options.pushdown,
            self.options.memory_bytes_max,
        )?;
        Ok(SqlSession::new(Arc::clone(self), context, shared, user))
    }

    /// The catalogue: as it was read, where it has not changed since, or read anew.
    pub(crate) async fn catalog(&self, anew: bool) -> Result<Arc<Catalog>, SqlError> {
        let mut cached = self.catalog.lock().await;
        // Without a table of objects there is no version by which a change would be seen.
        if let Some((at, catalog)) = &mut *cached
            && let (false, Some(version)) = (anew, catalog.version)
        {
            if at.elapsed() <= self.options.catalog_age_max {
                return Ok(Arc::clone(catalog));
            }
            if self.store.commit(&[(OBJECTS.to_owned(), version)], Vec::new()).await.is_ok() {
                *at = Instant::now();
                return Ok(Arc::clone(catalog));
            }
        }
        let catalog = Arc::new(Catalog::load(&*self.store).await?);
        *cached = Some((Instant::now(), Arc::clone(&catalog)));
        Ok(catalog)
    }

    /// Has the next statement read the catalogue anew.
    pub(crate) async fn forget_catalog(&self) {
        *self.catalog.lock().await = None;
    }
}
