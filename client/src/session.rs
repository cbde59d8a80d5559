//! A session: one owner's keys over a transport, with what was learnt of databases, tables and segments.
//!
//! ```text
//! Session ── create_database, recover, database ──> Database ── create_table, table ──> Table ── import, append, select, aggregate, ..
//! ```
//! Rule    every response is verified before it is used: certificates against the members in the keystore, catalogue entries against the
//!         certified root, headers and cells against live segment roots. A height below the last one seen is refused, for good.
//! Order   members are asked in turn, starting with the last one that answered well; the first good answer counts.

use crate::error::ClientError;
use crate::keyring::{Keyring, Table as OpenedTable};
use crate::keystore::{Keystore, KnownDatabase, KnownTable};
use crate::open::SegmentView;
use crate::plan::{CACHE_BYTES, PlanCache};
use crate::schema::TableSchema;
use crate::seal::TableKeys;
use crate::transport::Transport;
use fluence_crypto::{roots, sign};
use fluence_types::answer::{CellRange, OpenRefusal, OpenRequest, SegmentRanges};
use fluence_types::codec::{self, Bounded};
use fluence_types::limits::PAGE_CELLS;
use fluence_types::op::{Op, OpRefusal, UnsignedOp};
use fluence_types::tree::CatalogueEntry;
use fluence_types::{Address, DatabaseId, Height, NodeId, OpId, ProjectionId, SegmentRoot, TableId};
use fluence_verifier::answer::{self, AnswerError, CertifiedSnapshot, Trust, VerifiedAnswer};
use fluence_wire::message::{Refusal, Status};
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
    transport: T,
    keyring: Arc<Keyring>,
    keystore: Mutex<Keystore>,
    rng: Mutex<Box<dyn ClientRng>>,
    pub(crate) cache: Mutex<PlanCache>,
    entries: Mutex<HashMap<(DatabaseId, ProjectionId), CatalogueEntry>>,
    tables: Mutex<HashMap<(DatabaseId, String), TableHandle>>,
    /// Operations of one writer form a chain, so they are made one at a time.
    writing: futures::lock::Mutex<()>,
    /// The member that answered well last.
    preferred: AtomicUsize,
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
        _ => "an unknown response",
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

/// Whether the plan was made for another version than is current.
pub(crate) fn moved(error: &ClientError) -> bool {
    match error {
        ClientError::Refused { refusal: Refusal::Open(OpenRefusal::Moved(_)), .. } => true,
        ClientError::Answer { why, .. } => matches!(**why, AnswerError::Version { .. }),
        _ => false,
    }
}

impl<T: Transport> Session<T> {
    /// A session. `rng` makes segment ids, salts and database ids: use the system's generator.
    #[must_use]
    pub fn new(transport: T, keystore: Keystore, rng: impl ClientRng + 'static) -> Self {
        let inner = Inner {
            transport,
            keyring: Arc::clone(keystore.keyring()),
            keystore: Mutex::new(keystore),
            rng: Mutex::new(Box::new(rng)),
            cache: Mutex::new(PlanCache::new(CACHE_BYTES)),
            entries: Mutex::default(),
            tables: Mutex::default(),
            writing: futures::lock::Mutex::new(()),
            preferred: AtomicUsize::new(0),
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
        Ok(Trust { db: *id, members: known.members.clone(), min_height: known.last_seen })
    }

    /// Remembers a certified height: nothing older is believed from now on.
    pub(crate) fn note(&self, id: &DatabaseId, height: Height) -> Result<(), ClientError> {
        let mut keystore = lock(&self.inner.keystore);
        if let Some(known) = keystore.state.databases.get_mut(id)
            && known.last_seen < height
        {
            known.last_seen = height;
            keystore.save(&mut *lock(&self.inner.rng))?;
        }
        Ok(())
    }

    /// Asks one node.
    pub(crate) async fn ask_node(&self, node: &NodeId, request: Request) -> Result<Response, ClientError> {
        Ok(self.inner.transport.request(node, request).await?)
    }

    /// Asks the members in turn until one answers what `check` accepts.
    pub(crate) async fn ask<R>(
        &self,
        db: &DatabaseId,
        request: &Request,
        check: impl Fn(&NodeId, Response) -> Result<R, ClientError>,
    ) -> Result<(NodeId, R), ClientError> {
        let members = self.trust(db)?.members;
        let first = self.inner.preferred.load(Ordering::Relaxed);
        let mut failed: Option<ClientError> = None;
        for i in 0..members.len() {
            let at = (first + i) % members.len();
            let node = &members[at];
            let result = self.ask_node(node, request.clone()).await.and_then(|response| check(node, response));
            match result {
                Ok(value) => {
                    self.inner.preferred.store(at, Ordering::Relaxed);
                    return Ok((*node, value));
                }
                Err(error) if moved(&error) => return Err(error),
                Err(error) => {
                    tracing::warn!(%node, %error, "member did not answer well");
                    // A refusal or a lie says more than a silent node.
                    let keep = failed.take().filter(|e| !matches!(e, ClientError::Transport(_)));
                    failed = Some(keep.unwrap_or(error));
                }
            }
        }
        Err(failed.unwrap_or(ClientError::NoMembers))
    }

    /// A node's status, as it says.
    ///
    /// # Errors
    /// [`ClientError`] where it does not answer, or as another node.
    pub async fn status(&self, node: &NodeId) -> Result<Status, ClientError> {
        match self.ask_node(node, Request::Status).await? {
            Response::Status(status) if status.node == *node => Ok(status),
            Response::Status(status) => {
                Err(ClientError::Protocol { node: *node, what: format!("it calls itself {}", status.node) })
            }
            other => Err(unexpected(node, "a status", other)),
        }
    }

    /// Creates a database kept by `members`, with a fresh random id.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn create_database(
        &self,
        label: &str,
        members: Vec<NodeId>,
        addresses: Vec<(NodeId, String)>,
    ) -> Result<Database<T>, ClientError> {
        if members.is_empty() {
            return Err(ClientError::NoMembers);
        }
        let mut id = [0; 16];
        lock(&self.inner.rng).fill_bytes(&mut id);
        let id = DatabaseId::from_bytes(id);
        let too_many = |e: codec::TooMany| ClientError::Source(format!("members: {e}"));
        let known = KnownDatabase { addresses, ..KnownDatabase::of(label, members.clone()).map_err(too_many)? };
        self.remember(id, known)?;
        let op = Op::CreateDatabase { members: Bounded::new(members).map_err(too_many)? };
        let made = self.submit(&id, op).await;
        if let Err(ClientError::Op(_) | ClientError::Refused { .. }) = &made {
            // It does not exist, so there is nothing to remember. After a broken connection it may: keep it.
            lock(&self.inner.keystore).state.databases.remove(&id);
        }
        made?;
        self.database(id)
    }

    /// Finds the owner's databases on nodes: all that is needed beside the recovery phrase. Only databases whose members are all among
    /// `nodes` are taken, because members are what certificates are checked against; naming the nodes is the caller's trust.
    ///
    /// # Errors
    /// [`ClientError`] where a node does not answer, or what it keeps does not verify or open.
    pub async fn recover(&self, nodes: &[(NodeId, String)]) -> Result<Vec<DatabaseId>, ClientError> {
        let mut found = Vec::new();
        for (node, _) in nodes {
            let status = self.status(node).await?;
            for database in status.databases.iter().filter(|d| d.owner == self.address()) {
                let db = database.db;
                if found.contains(&db) {
                    continue;
                }
                if let Some(stranger) = database.members.iter().find(|m| !nodes.iter().any(|(n, _)| n == *m)) {
                    return Err(ClientError::Stranger { db, stranger: *stranger });
                }
                let seen = self.trust(&db).map_or(Height(0), |t| t.min_height);
                let trust = Trust { db, members: database.members.clone(), min_height: seen };
                let certified = answer::verify_certificate(&trust, &database.certificate)
                    .map_err(|why| ClientError::answer(node, why))?;
                let addresses = nodes.iter().filter(|(n, _)| database.members.contains(n)).cloned().collect();
                let known = KnownDatabase {
                    label: String::new(),
                    members: database.members.clone(),
                    addresses,
                    last_seen: certified.get().height,
                    tables: Vec::new(),
                };
                self.remember(db, known)?;
                self.database(db)?.refresh_tables().await?;
                found.push(db);
            }
        }
        Ok(found)
    }

    // --- Catalogue, headers, answers -----------------------------------------------------------------------------------

    /// A projection's entry at the latest certified root.
    pub(crate) async fn catalogue(
        &self,
        db: &DatabaseId,
        projection: ProjectionId,
    ) -> Result<CertifiedSnapshot, ClientError> {
        let trust = self.trust(db)?;
        let check = |node: &NodeId, response| match response {
            Response::Catalogue(snapshot) => {
                let refuse = |why| ClientError::answer(node, why);
                let snapshot = answer::verify_snapshot(&trust, *snapshot).map_err(refuse)?;
                let got = snapshot.entry().projection;
                if got != projection {
                    return Err(refuse(AnswerError::Projection { got, expected: projection }));
                }
                Ok(snapshot)
            }
            other => Err(unexpected(node, "a catalogue entry", other)),
        };
        let (_, snapshot) = self.ask(db, &Request::Catalogue { db: *db, projection }, check).await?;
        self.note(db, snapshot.checkpoint().height)?;
        lock(&self.inner.entries).insert((*db, projection), snapshot.entry().clone());
        Ok(snapshot)
    }

    /// The entry last seen, or the latest where none was. A stale one costs a refusal (`Moved`), never a wrong answer.
    pub(crate) async fn entry(&self, table: &TableHandle) -> Result<CatalogueEntry, ClientError> {
        let key = (table.keys.db(), table.projection);
        let cached = lock(&self.inner.entries).get(&key).cloned();
        match cached {
            Some(entry) => Ok(entry),
            None => Ok(self.catalogue(&key.0, key.1).await?.entry().clone()),
        }
    }

    /// Forgets the entry last seen.
    pub(crate) fn forget_entry(&self, table: &TableHandle) {
        lock(&self.inner.entries).remove(&(table.keys.db(), table.projection));
    }

    /// The verified headers and fences of live segments.
    pub(crate) async fn views(
        &self,
        table: &TableHandle,
        live: &[SegmentRoot],
        meter: &mut Meter,
    ) -> Result<Vec<Arc<SegmentView>>, ClientError> {
        let db = table.keys.db();
        let mut views = Vec::with_capacity(live.len());
        for root in live {
            let cached = lock(&self.inner.cache).view(root);
            if let Some(view) = cached {
                views.push(view);
                continue;
            }
            let check = |node: &NodeId, response| match response {
                Response::Header(header) => {
                    let bytes = codec::encode(&header).len() as u64;
                    let header = answer::verify_header(root, &header).map_err(|why| ClientError::answer(node, why))?;
                    Ok((bytes, SegmentView::new(&table.keys, *root, header)?))
                }
                other => Err(unexpected(node, "a header", other)),
            };
            let (_, (bytes, view)) = self.ask(&db, &Request::Header { db, segment: *root }, check).await?;
            meter.requests += 1;
            meter.plan_bytes += bytes;
            let view = Arc::new(view);
            lock(&self.inner.cache).put_view(Arc::clone(&view));
            views.push(view);
        }
        Ok(views)
    }

    /// Opens cells. A node whose cells are wrong is named with the page.
    pub(crate) async fn open(&self, request: &OpenRequest) -> Result<(VerifiedAnswer, u64), ClientError> {
        let trust = self.trust(&request.db)?;
        let check = |node: &NodeId, response| match response {
            Response::Open(answer) => {
                let bytes = codec::encode(&*answer).len() as u64;
                let verified =
                    answer::verify(&trust, request, *answer).map_err(|why| ClientError::answer(node, why))?;
                Ok((verified, bytes))
            }
            other => Err(unexpected(node, "an answer", other)),
        };
        let asked = self.ask(&request.db, &Request::Open(Box::new(request.clone())), check).await;
        match asked {
            Ok((_, (verified, bytes))) => {
                self.note(&request.db, verified.checkpoint().height)?;
                Ok((verified, bytes))
            }
            Err(ClientError::Answer { node, why }) if matches!(*why, AnswerError::Cells { .. }) => {
                Err(self.locate(&trust, node, request, *why).await)
            }
            Err(error) => Err(error),
        }
    }

    /// Which page of a segment a node has wrong: asks for halves of the pages until one is left.
    async fn locate(&self, trust: &Trust, node: NodeId, request: &OpenRequest, why: AnswerError) -> ClientError {
        let AnswerError::Cells { segment, .. } = why else { return ClientError::answer(&node, why) };
        let per_page = PAGE_CELLS as u64;
        let mut cells: Vec<CellRange> = Vec::new();
        for wanted in request.segments.iter().filter(|s| s.segment == segment) {
            for range in wanted.ranges.iter() {
                let mut first = range.first;
                while first < range.end() {
                    let end = range.end().min((first / per_page + 1) * per_page);
                    cells.push(CellRange { first, count: end - first });
                    first = end;
                }
            }
        }
        let (mut lo, mut hi) = (0, cells.len());
        while lo < hi && cells[lo].first / per_page != cells[hi - 1].first / per_page {
            // Split at a page boundary, so that both halves have whole pages of what was asked.
            let page = cells[lo + (hi - lo) / 2].first / per_page;
            let mut mid = lo + cells[lo..hi].partition_point(|c| c.first / per_page < page);
            if mid == lo {
                mid = lo + cells[lo..hi].partition_point(|c| c.first / per_page <= page);
            }
            match self.wrong_in(trust, &node, request, segment, &cells[lo..mid]).await {
                Some(true) => hi = mid,
                Some(false) => lo = mid,
                None => return ClientError::answer(&node, why),
            }
        }
        match cells.get(lo) {
            Some(c) => ClientError::Page { node, segment, page: c.first / per_page, why: Box::new(why) },
            None => ClientError::answer(&node, why),
        }
    }

    /// Whether a node's answer for some of the cells is wrong; `None` where it does not answer.
    async fn wrong_in(
        &self,
        trust: &Trust,
        node: &NodeId,
        request: &OpenRequest,
        segment: SegmentRoot,
        cells: &[CellRange],
    ) -> Option<bool> {
        let mut ranges: Vec<CellRange> = Vec::new();
        for c in cells {
            match ranges.last_mut() {
                Some(last) if last.end() == c.first => last.count += c.count,
                _ => ranges.push(*c),
            }
        }
        let segments = request.segments.iter().map(|s| SegmentRanges {
            segment: s.segment,
            ranges: Bounded::new(if s.segment == segment { ranges.clone() } else { Vec::new() }).unwrap_or_default(),
        });
        let part = OpenRequest { segments: Bounded::new(segments.collect()).ok()?, ..request.clone() };
        match self.ask_node(node, Request::Open(Box::new(part.clone()))).await {
            Ok(Response::Open(answer)) => Some(answer::verify(trust, &part, *answer).is_err()),
            _ => None,
        }
    }

    // --- Operations ----------------------------------------------------------------------------------------------------

    /// Where this writer stands.
    async fn writer(&self, db: &DatabaseId) -> Result<(u64, OpId), ClientError> {
        let address = self.address();
        let check = |node: &NodeId, response| match response {
            Response::Writer { next_sequence, previous } => Ok((next_sequence, previous)),
            other => Err(unexpected(node, "a writer's state", other)),
        };
        Ok(self.ask(db, &Request::Writer { db: *db, address }, check).await?.1)
    }

    /// Signs an operation as the writer's next, has it ordered, and checks the certificate. A node that was not reached is asked again
    /// with the same signed bytes, so the operation happens once.
    pub(crate) async fn submit(&self, db: &DatabaseId, op: Op) -> Result<Height, ClientError> {
        let _one_at_a_time = self.inner.writing.lock().await;
        let mut attempt = 0;
        loop {
            attempt += 1;
            let (sequence, previous) = match &op {
                Op::CreateDatabase { .. } => (0, OpId::default()),
                _ => self.writer(db).await?,
            };
            let unsigned = UnsignedOp { db: *db, writer: self.address(), sequence, previous, op: op.clone() };
            match self.submit_signed(db, unsigned).await {
                // Another client with the same key was faster: the operation did not happen, so it is signed anew.
                Err(ClientError::Op(OpRefusal::Sequence { .. } | OpRefusal::Chain { .. })) if attempt < ATTEMPTS => {}
                other => return other,
            }
        }
    }

    async fn submit_signed(&self, db: &DatabaseId, unsigned: UnsignedOp) -> Result<Height, ClientError> {
        let id = sign::op_id(&unsigned);
        let request = Request::Submit(Box::new(self.inner.keyring.sign(unsigned)));
        let trust = self.trust(db)?;
        let check = |node: &NodeId, response| match response {
            Response::Submit { receipt, certificate } => {
                if receipt.op != id {
                    return Err(ClientError::Protocol { node: *node, what: format!("a receipt for {}", receipt.op) });
                }
                let certified =
                    answer::verify_certificate(&trust, &certificate).map_err(|why| ClientError::answer(node, why))?;
                if certified.get().height < receipt.height {
                    let what =
                        format!("a certificate of height {} for block {}", certified.get().height, receipt.height);
                    return Err(ClientError::Protocol { node: *node, what });
                }
                Ok((certified.get().height, receipt))
            }
            other => Err(unexpected(node, "an operation's outcome", other)),
        };
        let mut attempt = 0;
        let (_, (height, receipt)) = loop {
            attempt += 1;
            match self.ask(db, &request, check).await {
                Err(ClientError::Transport(error)) if attempt < ATTEMPTS => {
                    tracing::warn!(%error, "operation may not have arrived; sending the same bytes again");
                }
                other => break other?,
            }
        };
        self.note(db, height)?;
        receipt.outcome.map_err(ClientError::Op)?;
        Ok(height)
    }
}

impl<T: Transport> Database<T> {
    /// Its id.
    #[must_use]
    pub const fn id(&self) -> DatabaseId {
        self.id
    }

    /// The session.
    #[must_use]
    pub const fn session(&self) -> &Session<T> {
        &self.session
    }

    /// The latest certified root, with the entry of a table.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn snapshot(&self, table: &Table<T>) -> Result<CertifiedSnapshot, ClientError> {
        self.session.catalogue(&self.id, table.handle.projection).await
    }

    /// Creates an empty table.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn create_table(&self, schema: TableSchema) -> Result<Table<T>, ClientError> {
        for _ in 0..ATTEMPTS {
            let count = self.refresh_tables().await?;
            if self.find(schema.name()).is_some() {
                return Err(ClientError::TableExists(schema.name().to_owned()));
            }
            let (projection, table) = (ProjectionId(count), TableId(count));
            let keyring = &self.session.inner.keyring;
            let public = keyring.seal_schema(&self.id, &table, &schema, &mut self.session.fork_rng())?;
            let op = Op::DefineProjection { projection, table, schema: public.clone() };
            match self.session.submit(&self.id, op).await {
                // Another client took the number; count again.
                Err(ClientError::Op(OpRefusal::Projection(_))) => {}
                Err(error) => return Err(error),
                Ok(_) => {
                    let entry = self.session.catalogue(&self.id, projection).await?.entry().clone();
                    if entry.schema != roots::schema_hash(&public) || entry.table != table {
                        return Err(ClientError::UnknownTable(schema.name().to_owned()));
                    }
                    self.refresh_tables().await?;
                    return self.table(schema.name()).await;
                }
            }
        }
        Err(ClientError::Op(OpRefusal::Malformed("projections are being added faster than they can be counted".into())))
    }

    /// A table by name.
    ///
    /// # Errors
    /// [`ClientError::UnknownTable`], or what fetching the schemas says.
    pub async fn table(&self, name: &str) -> Result<Table<T>, ClientError> {
        if let Some(handle) = self.find(name) {
            return Ok(Table { session: self.session.clone(), handle });
        }
        self.refresh_tables().await?;
        let handle = self.find(name).ok_or_else(|| ClientError::UnknownTable(name.chars().take(128).collect()))?;
        Ok(Table { session: self.session.clone(), handle })
    }

    /// Schemas of all tables known here, in projection order.
    ///
    /// # Errors
    /// [`ClientError`] where they cannot be fetched or do not open.
    pub async fn tables(&self) -> Result<Vec<TableSchema>, ClientError> {
        self.refresh_tables().await?;
        let mut list: Vec<_> = lock(&self.session.inner.tables)
            .iter()
            .filter(|((db, _), _)| *db == self.id)
            .map(|(_, handle)| (handle.projection, handle.keys.table().schema.clone()))
            .collect();
        list.sort_by_key(|(projection, _)| *projection);
        Ok(list.into_iter().map(|(_, schema)| schema).collect())
    }

    fn find(&self, name: &str) -> Option<TableHandle> {
        if let Some(handle) = lock(&self.session.inner.tables).get(&(self.id, name.to_owned())) {
            return Some(handle.clone());
        }
        // The keystore's copy, opened: no node needs to be asked.
        let known = lock(&self.session.inner.keystore).state.databases.get(&self.id)?.tables.clone();
        for table in known {
            let opened = self.session.inner.keyring.open_schema(&self.id, &table.table, &table.public).ok()?;
            self.put(table.projection, table.table, opened);
        }
        lock(&self.session.inner.tables).get(&(self.id, name.to_owned())).cloned()
    }

    fn put(&self, projection: ProjectionId, table: TableId, opened: OpenedTable) {
        let name = opened.schema.name().to_owned();
        let keys = TableKeys::new(Arc::clone(&self.session.inner.keyring), self.id, table, Arc::new(opened));
        lock(&self.session.inner.tables).insert((self.id, name), TableHandle { projection, keys });
    }

    /// Fetches all schemas, checks each against its certified catalogue entry, opens and remembers them. Returns their number.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn refresh_tables(&self) -> Result<u32, ClientError> {
        let check = |node: &NodeId, response| match response {
            Response::Schemas(schemas) => Ok(schemas),
            other => Err(unexpected(node, "schemas", other)),
        };
        let (node, schemas) = self.session.ask(&self.id, &Request::Schemas { db: self.id }, check).await?;
        let known = self.known_tables();
        let mut tables = Vec::with_capacity(schemas.len());
        for (i, public) in schemas.iter().enumerate() {
            let projection = ProjectionId(i as u32);
            if let Some(table) = known.iter().find(|t| t.projection == projection && t.public == *public) {
                tables.push(table.clone());
                continue;
            }
            let snapshot = self.session.catalogue(&self.id, projection).await?;
            let entry = snapshot.entry();
            if entry.schema != roots::schema_hash(public) {
                let what = format!("the schema of projection {projection} is not the one in the catalogue");
                return Err(ClientError::Protocol { node, what });
            }
            tables.push(KnownTable { projection, table: entry.table, public: public.clone() });
        }
        for table in &tables {
            let opened = self.session.inner.keyring.open_schema(&self.id, &table.table, &table.public)?;
            self.put(table.projection, table.table, opened);
        }
        let count = tables.len() as u32;
        if tables != known {
            let mut keystore = lock(&self.session.inner.keystore);
            if let Some(known) = keystore.state.databases.get_mut(&self.id) {
                known.tables = tables;
                keystore.save(&mut *lock(&self.session.inner.rng))?;
            }
        }
        Ok(count)
    }

    fn known_tables(&self) -> Vec<KnownTable> {
        let keystore = lock(&self.session.inner.keystore);
        keystore.state.databases.get(&self.id).map(|k| k.tables.clone()).unwrap_or_default()
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

/// Runs heavy work on rayon's threads, so that an executor's thread is not held up.
pub(crate) async fn offload<R: Send + 'static>(work: impl FnOnce() -> R + Send + 'static) -> R {
    let (send, receive) = futures::channel::oneshot::channel();
    rayon::spawn(move || {
        let _ = send.send(work());
    });
    receive.await.expect("the work sends its result before it ends; a panic in it ends the process")
}
