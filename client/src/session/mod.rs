//! A session: one owner's keys over a transport, with what was learnt of databases, tables and segments.
//!
//! ```text
//! Session ── create_database, recover, database ──> Database ── create_table, table ──> Table ── import, append, select, aggregate, ..
//! ```
//! Rule    every response is verified before it is used: certificates against the members in the keystore, catalogue entries against the
//!         certified root, headers and cells against live segment roots. A height below the last one seen is refused, for good.
//! Rooms   `found` databases, `tables`, `fetch` what is stored, `submit` operations
//! Members `ask.rs`: which member is asked, and what becomes of those that are slow, behind, or lie.

mod fetch;
mod found;
mod submit;
mod tables;

pub(crate) use submit::Ordered;

use crate::ask::{Lies, SessionOptions};
use crate::error::ClientError;
use crate::keyring::Keyring;
use crate::keystore::{Keystore, KnownDatabase};
use crate::lease::Held;
use crate::plan::{CACHE_BYTES, PlanCache};
use crate::schema::TableSchema;
use crate::seal::TableKeys;
use crate::transport::Transport;
use fluence_crypto::vote;
use fluence_types::block::Member;
use fluence_types::tree::CatalogueEntry;
use fluence_types::{Address, DatabaseId, DbRoot, Height, NodeId, OpId, ProjectionId, TableId, Version};
use fluence_verifier::answer::{CertifiedCheckpoint, CertifiedSnapshot, Trust, VerifiedAnswer};
use fluence_verifier::committee::Committee;
use fluence_wire::message::Status;
use fluence_wire::{Request, Response};
use rand::rngs::StdRng;
use rand::{CryptoRng, RngCore, SeedableRng};
use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// How often a plan is made again, or a conflicting commit retried, before the caller is told.
pub(crate) const ATTEMPTS: usize = 5;

/// A generator fit for keys that can be kept in a session.
pub trait ClientRng: RngCore + CryptoRng + Send {}
impl<R: RngCore + CryptoRng + Send> ClientRng for R {}

/// One owner over one transport. Cheap to clone.
pub struct Session<T> {
    pub(crate) inner: Arc<Inner<T>>,
}

impl<T> Clone for Session<T> {
    fn clone(&self) -> Self {
        Self { inner: Arc::clone(&self.inner) }
    }
}

pub(crate) struct Inner<T> {
    pub(crate) transport: T,
    keyring: Arc<Keyring>,
    keystore: Mutex<Keystore>,
    rng: Mutex<Box<dyn ClientRng>>,
    pub(crate) cache: Mutex<PlanCache>,
    pub(crate) entries: Mutex<HashMap<(DatabaseId, ProjectionId), CatalogueEntry>>,
    /// The newest root at which a projection's version was verified.
    seen: Mutex<HashMap<(DatabaseId, ProjectionId), Seen>>,
    tables: Mutex<HashMap<(DatabaseId, String), TableHandle>>,
    /// Tables that this session writes under a lease.
    pub(crate) leases: Mutex<HashMap<(DatabaseId, TableId), Arc<Held>>>,
    /// The writer's next sequence number and last operation, while nothing is known to have moved them.
    chains: Mutex<HashMap<DatabaseId, (u64, OpId)>>,
    /// Operations of one writer form a chain, so they are made one at a time.
    writing: futures::lock::Mutex<()>,
    /// The place among the members of the one that answered well last.
    preferred: AtomicUsize,
    pub(crate) options: SessionOptions,
    pub(crate) lies: Mutex<Lies>,
    /// Heights below which nothing is believed, from elsewhere: a chain's checkpoint. Not kept, because whoever said them may be wrong.
    floors: Mutex<HashMap<DatabaseId, Height>>,
}

impl<T> std::fmt::Debug for Session<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Session({})", self.inner.keyring.address())
    }
}

/// A database of a session.
pub struct Database<T> {
    pub(crate) session: Session<T>,
    id: DatabaseId,
}

impl<T> Clone for Database<T> {
    fn clone(&self) -> Self {
        Self { session: self.session.clone(), id: self.id }
    }
}

impl<T> std::fmt::Debug for Database<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Database({})", self.id)
    }
}

/// A version of a projection, at a certified root.
#[derive(Clone, Copy)]
struct Seen {
    version: Version,
    height: Height,
    root: DbRoot,
}

/// A table's keys and place in the catalogue.
#[derive(Clone, Debug)]
pub(crate) struct TableHandle {
    pub(crate) projection: ProjectionId,
    pub(crate) keys: TableKeys,
}

/// A table of a database.
pub struct Table<T> {
    pub(crate) session: Session<T>,
    pub(crate) handle: TableHandle,
}

impl<T> Clone for Table<T> {
    fn clone(&self) -> Self {
        Self { session: self.session.clone(), handle: self.handle.clone() }
    }
}

impl<T> std::fmt::Debug for Table<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Table({:?})", self.schema().name())
    }
}

pub(crate) fn lock<V>(mutex: &Mutex<V>) -> MutexGuard<'_, V> {
    // What is guarded is replaced whole or grows by whole entries, so a panic elsewhere leaves nothing half done.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The name of a response, for errors.
fn kind(response: &Response) -> &'static str {
    match response {
        Response::Refused(_) => "a refusal",
        Response::Status(_) => "a status",
        Response::Upload { .. } => "an upload state",
        Response::UploadEnd(_) => "a receipt",
        Response::Submit { .. } => "an operation's outcome",
        Response::Catalogue(_) => "a catalogue entry",
        Response::Header(_) => "a header",
        Response::Open(_) => "an answer",
        Response::ProveRangeSum(_) | Response::EpochProof(_) => "a proof",
        Response::Writer { .. } => "a writer's state",
        Response::Schemas(_) => "schemas",
        Response::Handovers(_) => "handovers",
        Response::Noted => "that it took note",
        Response::Cluster(_) => "its cluster's status",
        Response::Lease { .. } => "a lease",
        _ => "an unknown response",
    }
}

/// The name of a request, for logs.
pub(crate) const fn request_kind(request: &Request) -> &'static str {
    match request {
        Request::Submit(_) => "submit",
        Request::Catalogue { .. } => "catalogue",
        Request::Header { .. } => "header",
        Request::Open(_) => "open",
        Request::Writer { .. } => "writer",
        Request::Schemas { .. } => "schemas",
        _ => "other",
    }
}

/// The error of a response that is not the one asked for.
pub(crate) fn unexpected(node: &NodeId, asked: &str, response: Response) -> ClientError {
    match response {
        Response::Refused(refusal) => ClientError::Refused { node: *node, refusal },
        other => {
            ClientError::Protocol { node: *node, what: format!("asked for {asked}, it answered {}", kind(&other)) }
        }
    }
}

impl<T: Transport> Session<T> {
    /// A session. `rng` makes segment ids, salts and database ids: use the system's generator.
    #[must_use]
    pub fn new(transport: T, keystore: Keystore, rng: impl ClientRng + 'static) -> Self {
        Self::with(transport, keystore, rng, SessionOptions::default())
    }

    /// A session with its own idea of what is slow.
    #[must_use]
    pub fn with(transport: T, keystore: Keystore, rng: impl ClientRng + 'static, options: SessionOptions) -> Self {
        let inner = Inner {
            transport,
            keyring: Arc::clone(keystore.keyring()),
            keystore: Mutex::new(keystore),
            rng: Mutex::new(Box::new(rng)),
            cache: Mutex::new(PlanCache::new(CACHE_BYTES)),
            entries: Mutex::default(),
            seen: Mutex::default(),
            tables: Mutex::default(),
            leases: Mutex::default(),
            chains: Mutex::default(),
            writing: futures::lock::Mutex::new(()),
            preferred: AtomicUsize::new(0),
            options,
            lies: Mutex::default(),
            floors: Mutex::default(),
        };
        Self { inner: Arc::new(inner) }
    }

    /// The owner's address.
    #[must_use]
    pub fn address(&self) -> Address {
        self.inner.keyring.address()
    }

    /// The keys.
    #[must_use]
    pub fn keyring(&self) -> &Arc<Keyring> {
        &self.inner.keyring
    }

    /// Cells that a scan asks for at once.
    pub(crate) fn portion_cells(&self) -> u64 {
        self.inner.options.portion_cells
    }

    /// The transport.
    #[must_use]
    pub fn transport(&self) -> &T {
        &self.inner.transport
    }

    /// What the keystore knows.
    #[must_use]
    pub fn known(&self) -> std::collections::BTreeMap<DatabaseId, KnownDatabase> {
        lock(&self.inner.keystore).state.databases.clone()
    }

    /// Changes what the keystore knows of a database, and saves it.
    ///
    /// # Errors
    /// [`ClientError::Keystore`] where it cannot be saved.
    pub fn remember(&self, db: DatabaseId, known: KnownDatabase) -> Result<(), ClientError> {
        let mut keystore = lock(&self.inner.keystore);
        keystore.remember(db, known);
        Ok(keystore.save(&mut *lock(&self.inner.rng))?)
    }

    /// A generator for one act, seeded from the session's.
    pub(crate) fn fork_rng(&self) -> StdRng {
        let mut seed = <StdRng as SeedableRng>::Seed::default();
        lock(&self.inner.rng).fill_bytes(&mut seed);
        StdRng::from_seed(seed)
    }

    /// Forgets headers, fences and catalogue entries, so that the next query fetches them again.
    pub fn clear_caches(&self) {
        *lock(&self.inner.cache) = PlanCache::new(CACHE_BYTES);
        lock(&self.inner.entries).clear();
        lock(&self.inner.seen).clear();
    }

    /// A database that the keystore knows.
    ///
    /// # Errors
    /// [`ClientError::UnknownDatabase`].
    pub fn database(&self, id: DatabaseId) -> Result<Database<T>, ClientError> {
        self.trust(&id)?;
        Ok(Database { session: self.clone(), id })
    }

    /// What is trusted of a database before anything is asked.
    ///
    /// # Errors
    /// [`ClientError::UnknownDatabase`].
    pub fn trust(&self, id: &DatabaseId) -> Result<Trust, ClientError> {
        let keystore = lock(&self.inner.keystore);
        let known = keystore.state.databases.get(id).ok_or(ClientError::UnknownDatabase(*id))?;
        let floor = lock(&self.inner.floors).get(id).copied().unwrap_or_default();
        Ok(Trust { db: *id, committee: known.committee(), min_height: known.last_seen.max(floor) })
    }

    /// From now on, and as long as this session lives, answers below `height` are refused: the height that the chain's checkpoint has
    /// certified. It only rises.
    pub fn raise_floor(&self, id: DatabaseId, height: Height) {
        let mut floors = lock(&self.inner.floors);
        let floor = floors.entry(id).or_default();
        *floor = (*floor).max(height);
    }

    /// Remembers a certified height: nothing older is believed from now on. And, where its certificate says so, that the committee's
    /// time is over.
    pub(crate) fn note(&self, id: &DatabaseId, certified: &CertifiedCheckpoint) -> Result<(), ClientError> {
        let mut keystore = lock(&self.inner.keystore);
        let Some(known) = keystore.state.databases.get_mut(id) else { return Ok(()) };
        let height = certified.get().height;
        let ends = certified.ended() && known.until != Some(certified.epoch()) && known.since <= certified.epoch();
        if known.last_seen >= height && !ends {
            return Ok(());
        }
        known.last_seen = known.last_seen.max(height);
        if ends {
            known.until = Some(certified.epoch());
        }
        Ok(keystore.save(&mut *lock(&self.inner.rng))?)
    }

    /// The same of a root that was verified with a projection's entry.
    pub(crate) fn note_snapshot(&self, id: &DatabaseId, snapshot: &CertifiedSnapshot) -> Result<(), ClientError> {
        let (entry, at) = (snapshot.entry(), snapshot.checkpoint());
        let now = Seen { version: entry.version, height: at.height, root: at.root };
        let mut seen = lock(&self.inner.seen);
        let last = seen.entry((*id, entry.projection)).or_insert(now);
        if last.height < now.height {
            *last = now;
        }
        drop(seen);
        self.note(id, snapshot.certified())
    }

    /// Where all of these projections were seen last, each at this version: one root, and its height, where it is one.
    pub(crate) fn seen_together(&self, id: &DatabaseId, reads: &[(ProjectionId, Version)]) -> Option<(Height, DbRoot)> {
        let seen = lock(&self.inner.seen);
        let mut at = reads.iter().map(|(projection, version)| {
            seen.get(&(*id, *projection)).filter(|last| last.version == *version).copied()
        });
        let first = at.next()??;
        let together = at.all(|next| next.is_some_and(|next| next.root == first.root));
        together.then_some((first.height, first.root))
    }

    /// Remembers a committee that was checked.
    pub(crate) fn adopt(&self, id: &DatabaseId, committee: Committee) -> Result<(), ClientError> {
        let mut keystore = lock(&self.inner.keystore);
        if let Some(known) = keystore.state.databases.get_mut(id)
            && known.since < committee.since
        {
            known.take(committee);
            keystore.save(&mut *lock(&self.inner.rng))?;
        }
        Ok(())
    }

    /// The place of the member to ask first.
    pub(crate) fn preferred(&self) -> usize {
        self.inner.preferred.load(Ordering::Relaxed)
    }

    /// Asks a member first from now on, by its place among the members. Places wrap around.
    pub fn ask_first(&self, at: usize) {
        self.prefer(at);
    }

    /// The same, by what was learnt.
    pub(crate) fn prefer(&self, at: usize) {
        self.inner.preferred.store(at, Ordering::Relaxed);
    }

    /// Asks another member first from now on.
    pub(crate) fn prefer_another(&self) {
        self.inner.preferred.fetch_add(1, Ordering::Relaxed);
    }

    /// A node's status, as it says.
    ///
    /// # Errors
    /// [`ClientError`] where it does not answer, or as another node.
    pub async fn status(&self, node: &NodeId) -> Result<Status, ClientError> {
        match self.ask_node(node, Request::Status).await? {
            Response::Status(status) if status.node() == *node => Ok(status),
            Response::Status(status) => {
                Err(ClientError::Protocol { node: *node, what: format!("it calls itself {}", status.node()) })
            }
            other => Err(unexpected(node, "a status", other)),
        }
    }

    /// A node as a member of a cluster: its id, and the key it votes with, which it proves to have.
    ///
    /// # Errors
    /// [`ClientError`] where it does not answer, or does not have the key it names.
    pub async fn member(&self, node: &NodeId) -> Result<Member, ClientError> {
        let member = self.status(node).await?.member;
        vote::verify_member(&member).map_err(|why| ClientError::Signature { node: *node, why })?;
        Ok(member)
    }
}

impl<T> Table<T> {
    /// The session.
    #[must_use]
    pub const fn session(&self) -> &Session<T> {
        &self.session
    }

    /// Its schema.
    #[must_use]
    pub fn schema(&self) -> &TableSchema {
        &self.handle.keys.table().schema
    }

    /// Its database.
    #[must_use]
    pub const fn db(&self) -> DatabaseId {
        self.handle.keys.db()
    }

    /// Its projection in key order.
    #[must_use]
    pub const fn projection(&self) -> ProjectionId {
        self.handle.projection
    }
}

/// What an act cost so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Meter {
    pub(crate) requests: u64,
    pub(crate) plan_bytes: u64,
    pub(crate) bytes: u64,
    pub(crate) cells: u64,
}

impl Meter {
    /// Counts an answer of cells.
    pub(crate) fn opened(&mut self, answer: &VerifiedAnswer, bytes: u64) {
        self.requests += 1;
        self.bytes += bytes;
        self.cells += answer.segments().iter().map(|s| s.cells().len() as u64).sum::<u64>();
    }
}

/// Runs heavy work on rayon's threads, so that an executor's thread is not held up.
pub(crate) async fn offload<R: Send + 'static>(work: impl FnOnce() -> R + Send + 'static) -> R {
    let (send, receive) = futures::channel::oneshot::channel();
    rayon::spawn(move || {
        let _ = send.send(work());
    });
    receive.await.expect("the work sends its result before it ends; a panic in it ends the process")
}
