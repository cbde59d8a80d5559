//! A session: one owner's keys over a transport, with what was learnt of databases, tables and segments.
//!
//! ```text
//! Session ── create_database, recover, database ──> Database ── create_table, table ──> Table ── import, append, select, aggregate, ..
//! ```
//! Rule    every response is verified before it is used: certificates against the members in the keystore, catalogue entries against the
//!         certified root, headers and cells against live segment roots. A height below the last one seen is refused, for good.
//! Members `ask.rs`: which member is asked, and what becomes of those that are slow, behind, or lie.

use crate::ask::{Asked, Lies, SessionOptions, is_lie};
use crate::error::ClientError;
use crate::keyring::{Keyring, Table as OpenedTable};
use crate::keystore::{Keystore, KnownDatabase, KnownTable};
use crate::open::SegmentView;
use crate::plan::{CACHE_BYTES, PlanCache};
use crate::schema::TableSchema;
use crate::seal::TableKeys;
use crate::transport::Transport;
use fluence_crypto::{roots, sign, vote};
use fluence_types::answer::{CellRange, OpenRequest, SegmentRanges};
use fluence_types::block::{Member, Members};
use fluence_types::codec::{self, Bounded};
use fluence_types::limits::PAGE_CELLS;
use fluence_types::op::{Op, OpReceipt, OpRefusal, UnsignedOp};
use fluence_types::segment::PublicSchema;
use fluence_types::tree::CatalogueEntry;
use fluence_types::{Address, DatabaseId, Height, NodeId, OpId, ProjectionId, SegmentRoot, TableId};
use fluence_verifier::answer::{self, AnswerError, CertifiedCheckpoint, CertifiedSnapshot, Trust, VerifiedAnswer};
use fluence_verifier::committee::Committee;
use fluence_wire::message::{DatabaseStatus, Status};
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
    entries: Mutex<HashMap<(DatabaseId, ProjectionId), CatalogueEntry>>,
    tables: Mutex<HashMap<(DatabaseId, String), TableHandle>>,
    /// Operations of one writer form a chain, so they are made one at a time.
    writing: futures::lock::Mutex<()>,
    /// The place among the members of the one that answered well last.
    preferred: AtomicUsize,
    pub(crate) options: SessionOptions,
    pub(crate) lies: Mutex<Lies>,
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
        Response::Handovers(_) => "handovers",
        Response::Page(_) => "a page",
        Response::Noted => "that it took note",
        Response::Cluster(_) => "its cluster's status",
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
            tables: Mutex::default(),
            writing: futures::lock::Mutex::new(()),
            preferred: AtomicUsize::new(0),
            options,
            lies: Mutex::default(),
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
        Ok(Trust { db: *id, committee: known.committee(), min_height: known.last_seen })
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

    /// Asks this member first from now on; places wrap around.
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

    /// Creates a database kept by `nodes`, with a fresh random id. Each is asked for its vote key first; then each makes the first block
    /// by itself, and a quorum of them must.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn create_database(
        &self,
        label: &str,
        nodes: Vec<NodeId>,
        addresses: Vec<(NodeId, String)>,
    ) -> Result<Database<T>, ClientError> {
        if nodes.is_empty() {
            return Err(ClientError::NoMembers);
        }
        let asked = futures::future::join_all(nodes.iter().map(|node| self.member(node))).await;
        let mut members = asked.into_iter().collect::<Result<Vec<_>, _>>()?;
        members.sort_by_key(|m| m.node);
        let too_many = |e: codec::TooMany| ClientError::Source(format!("members: {e}"));
        let members: Members = Bounded::new(members).map_err(too_many)?;
        vote::verify_members(&members).map_err(ClientError::Members)?;
        let mut id = [0; 16];
        lock(&self.inner.rng).fill_bytes(&mut id);
        let id = DatabaseId::from_bytes(id);
        self.remember(id, KnownDatabase { addresses, ..KnownDatabase::of(label, Committee::new(0, members.clone())) })?;
        let op = Op::CreateDatabase { members };
        let made = self.submit_introduced(&id, op).await;
        if let Err(ClientError::Op(_) | ClientError::Conflict { .. } | ClientError::Refused { .. }) = &made {
            // It does not exist, so there is nothing to remember. After a broken connection it may: keep it.
            lock(&self.inner.keystore).state.databases.remove(&id);
        }
        made?;
        self.database(id)
    }

    /// Finds the owner's databases on nodes: all that is needed beside the recovery phrase. Only databases whose members are all among
    /// `nodes` are taken, because members are what certificates are checked against; naming the nodes is the caller's trust. Of a
    /// database that is known, the committee is followed from the one that is known. Nodes that are not reached are passed over, as long
    /// as one is.
    ///
    /// # Errors
    /// [`ClientError`] where no node answers, or what one keeps does not verify or open.
    pub async fn recover(&self, nodes: &[(NodeId, String)]) -> Result<Vec<DatabaseId>, ClientError> {
        let mut found = Vec::new();
        let mut unreached = None;
        let mut reached = 0;
        for (node, _) in nodes {
            let status = match self.status(node).await {
                Err(error @ ClientError::Transport(_)) => {
                    tracing::warn!(%node, %error, "node passed over");
                    unreached = Some(error);
                    continue;
                }
                other => other?,
            };
            reached += 1;
            for database in status.databases.iter().filter(|d| d.owner == self.address()) {
                let db = database.db;
                if found.contains(&db) {
                    continue;
                }
                let (committee, certified) = self.recovered(node, database, nodes).await?;
                let named = |n: &NodeId| committee.member(n).is_some();
                let addresses = nodes.iter().filter(|(n, _)| named(n)).cloned().collect();
                let last_seen = certified.get().height;
                self.remember(db, KnownDatabase { addresses, last_seen, ..KnownDatabase::of("", committee) })?;
                self.note(&db, &certified)?;
                self.database(db)?.refresh_tables().await?;
                found.push(db);
            }
        }
        match unreached {
            Some(error) if reached == 0 => Err(error),
            _ => Ok(found),
        }
    }

    /// The committee of a database that a node shows, and its certificate, checked.
    async fn recovered(
        &self,
        node: &NodeId,
        database: &DatabaseStatus,
        nodes: &[(NodeId, String)],
    ) -> Result<(Committee, CertifiedCheckpoint), ClientError> {
        let db = database.db;
        let verify = |trust: &Trust| {
            let certified = answer::verify_certificate(trust, &database.certificate);
            certified.map_err(|why| ClientError::answer(node, why))
        };
        if let Ok(mut trust) = self.trust(&db) {
            let certified = match verify(&trust) {
                Err(ClientError::Answer { why, .. }) if matches!(*why, AnswerError::NewCommittee { .. }) => {
                    self.follow(&db, &[*node]).await?;
                    trust = self.trust(&db)?;
                    verify(&trust)?
                }
                other => other?,
            };
            return Ok((trust.committee, certified));
        }
        let members = &database.members;
        if let Some(stranger) = members.iter().find(|m| !nodes.iter().any(|(n, _)| *n == m.node)) {
            return Err(ClientError::Stranger { db, stranger: stranger.node });
        }
        vote::verify_members(members).map_err(ClientError::Members)?;
        let committee = Committee::new(database.certificate.header.consensus_epoch, members.clone());
        let trust = Trust { db, committee, min_height: Height(0) };
        let certified = verify(&trust)?;
        Ok((trust.committee, certified))
    }

    // --- Catalogue, headers, answers -----------------------------------------------------------------------------------

    /// A projection's entry at the latest certified root.
    pub(crate) async fn catalogue(
        &self,
        db: &DatabaseId,
        projection: ProjectionId,
    ) -> Result<CertifiedSnapshot, ClientError> {
        let check = |asked: &Asked<'_>, response| match response {
            Response::Catalogue(snapshot) => {
                let snapshot = answer::verify_snapshot(asked.trust, *snapshot).map_err(|why| asked.refuse(why))?;
                let got = snapshot.entry().projection;
                if got != projection {
                    return Err(asked.refuse(AnswerError::Projection { got, expected: projection }));
                }
                Ok(snapshot)
            }
            other => Err(unexpected(asked.node, "a catalogue entry", other)),
        };
        let (_, snapshot) = self.ask(db, &Request::Catalogue { db: *db, projection }, check).await?;
        self.note(db, snapshot.certified())?;
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
            let check = |asked: &Asked<'_>, response| match response {
                Response::Header(header) => {
                    let header = answer::verify_header(root, &header).map_err(|why| asked.refuse(why))?;
                    Ok((asked.bytes(), SegmentView::new(&table.keys, *root, header)?))
                }
                other => Err(unexpected(asked.node, "a header", other)),
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
        let check = |asked: &Asked<'_>, response| match response {
            Response::Open(answer) => {
                let verified = answer::verify(asked.trust, request, *answer).map_err(|why| asked.refuse(why))?;
                Ok((verified, asked.bytes()))
            }
            other => Err(unexpected(asked.node, "an answer", other)),
        };
        let asked = self.ask(&request.db, &Request::Open(Box::new(request.clone())), check).await;
        match asked {
            Ok((_, (verified, bytes))) => {
                self.note(&request.db, verified.snapshot().certified())?;
                Ok((verified, bytes))
            }
            Err(ClientError::Answer { node, why }) if matches!(*why, AnswerError::Cells { .. }) => {
                Err(self.locate(&self.trust(&request.db)?, node, request, *why).await)
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
        let check = |asked: &Asked<'_>, response| match response {
            Response::Writer { next_sequence, previous } => Ok((next_sequence, previous)),
            other => Err(unexpected(asked.node, "a writer's state", other)),
        };
        Ok(self.ask(db, &Request::Writer { db: *db, address }, check).await?.1)
    }

    /// Signs an operation as the writer's next, has it ordered, and checks the certificate. A cluster that was not reached is asked again
    /// with the same signed bytes, so the operation happens once. Returns which member says so.
    pub(crate) async fn submit(&self, db: &DatabaseId, op: Op) -> Result<Ordered, ClientError> {
        let _one_at_a_time = self.inner.writing.lock().await;
        if let Op::CreateDatabase { .. } = &op {
            let (sequence, previous) = (0, OpId::default());
            return self
                .submit_to_all(db, UnsignedOp { db: *db, writer: self.address(), sequence, previous, op })
                .await;
        }
        let mut attempt = 0;
        loop {
            attempt += 1;
            let (sequence, previous) = self.writer(db).await?;
            let unsigned = UnsignedOp { db: *db, writer: self.address(), sequence, previous, op: op.clone() };
            match self.submit_signed(db, unsigned).await {
                // Another client with the same key was faster, or the member that said where we stand is behind: the operation did not
                // happen, so it is signed anew.
                Err(ClientError::Op(OpRefusal::Sequence { .. } | OpRefusal::Chain { .. })) if attempt < ATTEMPTS => {
                    self.prefer_another();
                }
                other => return other,
            }
        }
    }

    /// Has an operation ordered by whichever member answers.
    async fn submit_signed(&self, db: &DatabaseId, unsigned: UnsignedOp) -> Result<Ordered, ClientError> {
        let id = sign::op_id(&unsigned);
        let request = Request::Submit(Box::new(self.inner.keyring.sign(unsigned)));
        let mut attempt = 0;
        let check = |asked: &Asked<'_>, response| Ok((submitted(asked, response, id)?, asked.encoded.to_vec()));
        let (node, ((certified, receipt), response)) = loop {
            attempt += 1;
            match self.ask(db, &request, check).await {
                Err(ClientError::Transport(error)) if attempt < ATTEMPTS => {
                    tracing::warn!(%error, "operation may not have arrived; sending the same bytes again");
                }
                other => break other?,
            }
        };
        self.note(db, &certified)?;
        receipt.outcome.map_err(ClientError::from)?;
        Ok(Ordered { node, request, response })
    }

    /// Has an operation done by every member by itself: only the first of a database is.
    async fn submit_to_all(&self, db: &DatabaseId, unsigned: UnsignedOp) -> Result<Ordered, ClientError> {
        let id = sign::op_id(&unsigned);
        let request = &Request::Submit(Box::new(self.inner.keyring.sign(unsigned)));
        let trust = &self.trust(db)?;
        let members = &trust.committee.members;
        let done = self.gather(members, |node| async move {
            let mut attempt = 0;
            let response = loop {
                attempt += 1;
                match self.ask_node(&node, request.clone()).await {
                    Err(ClientError::Transport(error)) if attempt < ATTEMPTS && error.may_pass() => {
                        tracing::warn!(%node, %error, "operation may not have arrived; sending the same bytes again");
                    }
                    other => break other?,
                }
            };
            let encoded = codec::encode(&response);
            let asked = Asked { trust, node: &node, encoded: &encoded };
            let (certified, receipt) = submitted(&asked, response, id).inspect_err(|error| {
                if is_lie(error) {
                    self.blame(node, error, codec::encode(request), encoded.clone());
                }
            })?;
            receipt.outcome.map_err(ClientError::from)?;
            Ok((node, certified, encoded))
        });
        let mut done = done.await?;
        for (_, certified, _) in &done {
            self.note(db, certified)?;
        }
        let (node, _, response) = done.swap_remove(0);
        Ok(Ordered { node, request: request.clone(), response })
    }
}

/// An operation that a member says was ordered.
pub(crate) struct Ordered {
    /// Who says so.
    pub(crate) node: NodeId,
    /// What it was asked.
    pub(crate) request: Request,
    /// Its response, encoded.
    pub(crate) response: Vec<u8>,
}

/// Checks what came back for an operation.
fn submitted(asked: &Asked<'_>, response: Response, id: OpId) -> Result<(CertifiedCheckpoint, OpReceipt), ClientError> {
    let protocol = |what: String| ClientError::Protocol { node: *asked.node, what };
    match response {
        Response::Submit { receipt, certificate } => {
            if receipt.op != id {
                return Err(protocol(format!("a receipt for {}", receipt.op)));
            }
            let certified = answer::verify_certificate(asked.trust, &certificate).map_err(|why| asked.refuse(why))?;
            let height = certified.get().height;
            if height < receipt.height {
                return Err(protocol(format!("a certificate of height {height} for block {}", receipt.height)));
            }
            Ok((certified, receipt))
        }
        other => Err(unexpected(asked.node, "an operation's outcome", other)),
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
        let known = self.known_tables();
        let request = Request::Schemas { db: self.id };
        let check = |asked: &Asked<'_>, response| match response {
            // Tables are never dropped.
            Response::Schemas(schemas) if schemas.len() < known.len() => {
                let what = format!("it knows {} tables of {}", schemas.len(), known.len());
                Err(ClientError::Behind { node: *asked.node, what })
            }
            Response::Schemas(schemas) => Ok(schemas),
            other => Err(unexpected(asked.node, "schemas", other)),
        };
        let mut members = self.session.trust(&self.id)?.committee.members.len();
        let tables = loop {
            let (node, schemas) = self.session.ask(&self.id, &request, check).await?;
            match self.checked_tables(node, &schemas, &known).await {
                Err(error @ ClientError::Protocol { .. }) => {
                    let response = codec::encode(&Response::Schemas(schemas));
                    self.session.blame(node, &error, codec::encode(&request), response);
                    self.session.prefer_another();
                    members = members.saturating_sub(1);
                    if members == 0 {
                        return Err(error);
                    }
                }
                other => break other?,
            }
        };
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

    /// The tables of these schemas, those that are not known checked against the catalogue.
    async fn checked_tables(
        &self,
        node: NodeId,
        schemas: &[PublicSchema],
        known: &[KnownTable],
    ) -> Result<Vec<KnownTable>, ClientError> {
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
        Ok(tables)
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
