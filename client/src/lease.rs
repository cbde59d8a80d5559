//! Leases: for a time, this session is the one writer of a table.
//!
//! Take    [`Table::lease`] gives a guard and a keeper. The keeper is a future that renews the lease; whoever holds the guard has it driven.
//! Write   while the guard lives, every commit of the session to that table carries the lease's number. Where the cluster says that the
//!         lease is over, it is lost for good: writes fail with [`ClientError::LeaseLost`] until the guard is dropped.
//! Rule    no clock of ours decides: the cluster's does, and it refuses what comes under a number that is over.
//! Source  DESIGN section 7; `docs/protocol/cluster.md`

use crate::ask::Asked;
use crate::error::ClientError;
use crate::session::{ATTEMPTS, Session, Table, lock, unexpected};
use crate::transport::Transport;
use fluence_types::limits::{LEASE_MS_MAX, LEASE_MS_MIN};
use fluence_types::op::{self, LeaseAction, Op, OpRefusal};
use fluence_types::{Address, DatabaseId, Fence, TableId};
use fluence_wire::{Request, Response};
use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

/// How a lease is held.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LeaseOptions {
    /// How long it runs without being renewed: so long others wait for a holder that vanished. A proposer's clock may be 60 s ahead, and
    /// a lease end early by that, so one that must not be lost is longer.
    pub duration: Duration,
    /// When it is renewed; within half of `duration`.
    pub renew: Duration,
}

impl Default for LeaseOptions {
    fn default() -> Self {
        Self { duration: Duration::from_secs(120), renew: Duration::from_secs(30) }
    }
}

impl LeaseOptions {
    fn duration_ms(&self) -> u32 {
        u32::try_from(self.duration.as_millis()).unwrap_or(u32::MAX).clamp(LEASE_MS_MIN, LEASE_MS_MAX)
    }
}

/// What a session knows of a lease that it took.
#[derive(Debug)]
pub(crate) struct Held {
    fence: Fence,
    /// Why it is over.
    lost: Mutex<Option<String>>,
}

impl Held {
    fn lose(&self, why: &impl std::fmt::Display) {
        lock(&self.lost).get_or_insert_with(|| why.to_string());
    }
}

/// A table's lease. Dropped, it lapses; [`Self::release`] gives it up at once.
pub struct Lease<T> {
    table: Table<T>,
    held: Arc<Held>,
}

impl<T> std::fmt::Debug for Lease<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Lease({:?}, {})", self.table, self.held.fence)
    }
}

/// Renews a lease until its guard is gone or it is lost.
pub struct Keeper<T> {
    session: Session<T>,
    db: DatabaseId,
    table: TableId,
    held: Weak<Held>,
    options: LeaseOptions,
}

impl<T> std::fmt::Debug for Keeper<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Keeper({}, {})", self.db, self.table)
    }
}

/// Where a table's lease stands, as one member says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LeaseStatus {
    /// Who holds it, if anybody.
    pub holder: Option<Address>,
    /// Until when, in milliseconds since 1970.
    pub until_ms: u64,
    /// The number of the last one.
    pub fence: Fence,
    /// The time of the block at which it stood so.
    pub now_ms: u64,
}

/// Whether an error means that a lease is over.
fn ends(error: &ClientError) -> bool {
    matches!(
        error,
        ClientError::LeaseLost { .. } | ClientError::Leased { .. } | ClientError::Op(OpRefusal::NotAllowed(_))
    )
}

impl<T: Transport> Table<T> {
    /// Where the lease of this table stands. A member's word, which nothing is built on but an attempt.
    ///
    /// # Errors
    /// [`ClientError`] where no member answers.
    pub async fn lease_status(&self) -> Result<LeaseStatus, ClientError> {
        let (db, table) = (self.db(), self.handle.keys.table_id());
        let check = |asked: &Asked<'_>, response| match response {
            Response::Lease { lease, now_ms } => Ok((lease, now_ms)),
            other => Err(unexpected(asked.node, "a lease", other)),
        };
        let (_, (lease, now_ms)) = self.session.ask(&db, &Request::Lease { db, table }, check).await?;
        let op::Lease { fence, until_ms, .. } = lease;
        Ok(LeaseStatus { holder: lease.holder_at(now_ms), until_ms, fence, now_ms })
    }

    /// Takes the lease of this table, if nobody holds it.
    ///
    /// # Errors
    /// [`ClientError::Leased`] where somebody does; other [`ClientError`]s where the cluster was not reached.
    pub async fn lease(&self, options: LeaseOptions) -> Result<(Lease<T>, Keeper<T>), ClientError> {
        let (db, table) = (self.db(), self.handle.keys.table_id());
        for attempt in 1.. {
            let status = self.lease_status().await?;
            if let Some(holder) = status.holder {
                let LeaseStatus { until_ms, now_ms, .. } = status;
                return Err(ClientError::Leased { table, holder, until_ms, now_ms });
            }
            let fence = Fence(status.fence.0.saturating_add(1));
            let action = LeaseAction::Acquire { fence, duration_ms: options.duration_ms() };
            match self.session.submit(&db, Op::Lease { table, action }).await {
                // The member that was asked is behind, or made it up, or somebody was faster.
                Err(ClientError::LeaseLost { .. }) if attempt < ATTEMPTS => self.session.prefer_another(),
                Err(error) => return Err(error),
                Ok(_) => {
                    let held = Arc::new(Held { fence, lost: Mutex::default() });
                    lock(&self.session.inner.leases).insert((db, table), Arc::clone(&held));
                    let session = self.session.clone();
                    let keeper = Keeper { session, db, table, held: Arc::downgrade(&held), options };
                    return Ok((Lease { table: self.clone(), held }, keeper));
                }
            }
        }
        unreachable!("the loop returns")
    }

    /// Ends whatever lease of this table runs: for an owner whose writer vanished. What its holder still sends is refused from then on.
    ///
    /// # Errors
    /// [`ClientError`]; only the owner may.
    pub async fn break_lease(&self) -> Result<(), ClientError> {
        let table = self.handle.keys.table_id();
        let broken = self.session.submit(&self.db(), Op::Lease { table, action: LeaseAction::Break }).await;
        broken.map(|_| ())
    }
}

impl<T> Lease<T> {
    /// Its number.
    #[must_use]
    pub fn fence(&self) -> Fence {
        self.held.fence
    }

    /// The table.
    #[must_use]
    pub const fn table(&self) -> &Table<T> {
        &self.table
    }

    /// Why it is over, as far as is known.
    #[must_use]
    pub fn lost(&self) -> Option<String> {
        lock(&self.held.lost).clone()
    }
}

impl<T: Transport> Lease<T> {
    /// Gives the lease up, so that others need not wait for its end.
    ///
    /// # Errors
    /// [`ClientError`]; then it lapses.
    pub async fn release(self) -> Result<(), ClientError> {
        let (table, fence) = (self.table.handle.keys.table_id(), self.held.fence);
        let action = LeaseAction::Release { fence };
        self.table.session.submit(&self.table.db(), Op::Lease { table, action }).await.map(|_| ())
    }
}

impl<T> Drop for Lease<T> {
    fn drop(&mut self) {
        let key = (self.table.handle.keys.db(), self.table.handle.keys.table_id());
        let mut leases = lock(&self.table.session.inner.leases);
        // A later lease of the same table may have taken its place.
        if leases.get(&key).is_some_and(|held| Arc::ptr_eq(held, &self.held)) {
            leases.remove(&key);
        }
    }
}

impl<T: Transport> Keeper<T> {
    /// Renews until the guard is gone or the lease is lost. A cluster that is not reached is tried again: it alone knows the time.
    pub async fn run(self) {
        let pause = self.options.renew.min(self.options.duration / 2);
        let mut next = pause;
        loop {
            self.session.inner.transport.sleep(next).await;
            let Some(held) = self.held.upgrade().filter(|held| lock(&held.lost).is_none()) else { return };
            let action = LeaseAction::Renew { fence: held.fence, duration_ms: self.options.duration_ms() };
            next = match self.session.submit(&self.db, Op::Lease { table: self.table, action }).await {
                Ok(_) => pause,
                Err(error) if ends(&error) => {
                    tracing::warn!(table = %self.table, %error, "the lease of a table is lost");
                    return held.lose(&error);
                }
                Err(error) => {
                    tracing::warn!(table = %self.table, %error, "the lease of a table was not renewed; trying again");
                    pause / 4
                }
            };
        }
    }
}

impl<T> Session<T> {
    /// The numbers under which commits to these tables go.
    pub(crate) fn fences(
        &self,
        db: &DatabaseId,
        tables: &BTreeSet<TableId>,
    ) -> Result<Vec<(TableId, Fence)>, ClientError> {
        let leases = lock(&self.inner.leases);
        let held = tables.iter().filter_map(|table| Some((*table, leases.get(&(*db, *table))?)));
        held.map(|(table, held)| match &*lock(&held.lost) {
            Some(why) => Err(ClientError::LeaseLost { table, why: why.clone() }),
            None => Ok((table, held.fence)),
        })
        .collect()
    }

    /// Remembers that a commit was refused because a lease is over.
    pub(crate) fn note_lost(&self, db: &DatabaseId, tables: &BTreeSet<TableId>, error: &ClientError) {
        let (ClientError::LeaseLost { table, .. } | ClientError::Leased { table, .. }) = error else { return };
        if let Some(held) = lock(&self.inner.leases).get(&(*db, *table)).filter(|_| tables.contains(table)) {
            held.lose(error);
        }
    }
}
