//! The driver of a group writer: takes rows, seals, commits, answers; and merges beside that.
//!
//! Order   a merge is read and sealed while ticks go on, and takes effect inside the next tick's commit, so that it conflicts with none.
//!         Segments that this driver sealed itself, and that are small, are merged into the tick's own segment from memory.
//! Full    where the database has no place for a segment, a commit waits for as long as it is tried; then its rows are told, with the
//!         block from which on there is room. Merges without rows beside them wait on, and hold up no group that ends.

use super::queue::Pending;
use super::{GroupError, GroupOptions, GroupStats, Inserted, Shared};
use crate::error::ClientError;
use crate::seal::{SEGMENT_ROWS_MAX, SealStats, SealedSegment, Sealer};
use crate::session::{Meter, Table, lock};
use crate::tiers;
use crate::transport::Transport;
use crate::value::Value;
use crate::write::{NewRows, Part, PreparedMerge, Shown, start_over};
use arrow_array::RecordBatch;
use arrow_select::concat::concat_batches;
use fluence_types::limits::{INLINE_SEGMENT_BYTES_MAX, LIVE_SEGMENTS_MAX};
use fluence_types::op::OpRefusal;
use fluence_types::tree::CatalogueEntry;
use fluence_types::{Height, SegmentRoot};
use futures::future::{Either, select};
use futures::stream::{FuturesUnordered, Stream, StreamExt};
use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::pin::pin;
use std::sync::Arc;

/// Merges under way at once: a large one holds no small one up.
const MERGES_MAX: usize = 2;
/// Rows that are taken to fit into an operation before anything was sealed.
const INLINE_ROWS: u64 = 128;

/// Does the work of a group writer. Dropped, it answers those who wait that it has ended.
pub struct GroupDriver<T> {
    table: Table<T>,
    shared: Arc<Shared>,
    options: GroupOptions,
}

impl<T> std::fmt::Debug for GroupDriver<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "GroupDriver({:?})", self.table)
    }
}

impl<T> Drop for GroupDriver<T> {
    fn drop(&mut self) {
        self.shared.queue.close();
        for Pending { answer, .. } in self.shared.queue.take(usize::MAX) {
            let _ = answer.send(Err(GroupError::Closed));
        }
    }
}

type Done = (Vec<SegmentRoot>, Result<PreparedMerge, ClientError>);

/// What the driver knows of its table.
struct State {
    entry: CatalogueEntry,
    /// Rows of live segments, as far as they are known.
    rows: BTreeMap<SegmentRoot, u64>,
    /// The rows themselves, of those that this driver sealed and that are small.
    plain: BTreeMap<SegmentRoot, RecordBatch>,
    /// What is being merged.
    merging: BTreeSet<SegmentRoot>,
    ready: Vec<PreparedMerge>,
    /// Rows that fit into an operation, as the last segments came out.
    inline_rows: u64,
    /// Merges that failed, one after the other; none begins before the next tick.
    failures: u32,
    held: bool,
    /// Merges that are ready were refused, without rows beside them: a database that is full has no place for them.
    refused: bool,
}

/// What became of a commit.
enum Settled {
    /// It is certified.
    Done(Height, CatalogueEntry),
    /// It did not happen and never will: the table is past the version that it read.
    Passed(CatalogueEntry),
    /// It did not happen.
    Failed(ClientError),
    /// That is not known.
    Unknown(ClientError),
}

/// A tick, sealed.
struct Tick {
    part: Part,
    /// Of its own segment: root, rows, and what they are, where that is worth keeping.
    own: Option<(SegmentRoot, RecordBatch)>,
    folded: usize,
    merges: Vec<(SegmentRoot, u64)>,
    merged: usize,
    rows: u64,
    bytes: u64,
}

impl State {
    fn new(entry: CatalogueEntry) -> Self {
        let (rows, plain, merging, ready) = Default::default();
        Self { entry, rows, plain, merging, ready, inline_rows: INLINE_ROWS, failures: 0, held: false, refused: false }
    }

    /// Takes another entry: what it does not name is forgotten, and merges of it with it. Gives how many of these there were.
    fn take(&mut self, entry: CatalogueEntry) -> u64 {
        self.entry = entry;
        let live = &self.entry.live;
        self.rows.retain(|root, _| live.contains(root));
        self.plain.retain(|root, _| live.contains(root));
        let before = self.ready.len();
        self.ready.retain(|merge| merge.inputs.iter().all(|root| live.contains(root)));
        (before - self.ready.len()) as u64
    }

    /// Live segments that no merge has, with their rows; those whose rows are not known yet are left out.
    fn free(&self) -> Vec<(SegmentRoot, u64)> {
        let taken = |root: &SegmentRoot| {
            self.merging.contains(root) || self.ready.iter().any(|merge| merge.inputs.contains(root))
        };
        let live = self.entry.live.iter().filter(|root| !taken(root));
        live.filter_map(|root| Some((*root, *self.rows.get(root)?))).collect()
    }

    /// Those to merge into the segment of a tick with `rows` rows: all of them here in memory, and all of it fits.
    fn fold(&self, rows: u64) -> Vec<SegmentRoot> {
        let chosen = tiers::choose(self.free(), SEGMENT_ROWS_MAX as u64);
        let sum: u64 = chosen.iter().map(|root| self.rows[root]).sum();
        let here = chosen.iter().all(|root| self.plain.contains_key(root));
        if here && sum + rows <= self.inline_rows { chosen } else { Vec::new() }
    }

    /// Rows for which a tick has room beside what it folds in; none where it folds nothing.
    fn room(&self) -> u64 {
        match self.fold(0) {
            fold if fold.is_empty() => 0,
            fold => self.inline_rows - fold.iter().map(|root| self.rows[root]).sum::<u64>(),
        }
    }

    /// Live segments after the next tick.
    fn next_live(&self) -> usize {
        let freed: usize = self.ready.iter().map(|m| m.inputs.len() - usize::from(m.output.is_some())).sum();
        self.entry.live.len() + 1 - freed.min(self.entry.live.len())
    }

    /// Learns from a segment how many rows fit.
    fn measure(&mut self, segment: &SealedSegment) {
        let (rows, bytes, room) = (segment.rows(), segment.byte_len(), INLINE_SEGMENT_BYTES_MAX as u64);
        if bytes > room {
            self.inline_rows = self.inline_rows.min(rows.saturating_mul(room) / bytes * 7 / 8).max(1);
        } else if rows >= self.inline_rows / 2 {
            // Half of the room that is left, so that the next is seldom too large.
            let fits = rows.saturating_mul(room) / bytes.max(1);
            self.inline_rows = self.inline_rows.max(rows + fits.saturating_sub(rows) / 2);
        }
    }
}

/// Waits for a merge to end; for ever where none is under way.
async fn ended(merges: &mut (impl Stream<Item = Done> + Unpin)) -> Done {
    match merges.next().await {
        Some(one) => one,
        None => std::future::pending().await,
    }
}

/// Goes on with merges while something else is done; those that end meanwhile are in `done`.
async fn beside<F: Future>(merges: &mut (impl Stream<Item = Done> + Unpin), done: &mut Vec<Done>, act: F) -> F::Output {
    let mut act = pin!(act);
    loop {
        match select(act.as_mut(), pin!(ended(merges))).await {
            Either::Left((output, _)) => return output,
            Either::Right((one, _)) => done.push(one),
        }
    }
}

impl<T: Transport> GroupDriver<T> {
    pub(super) fn new(table: Table<T>, shared: Arc<Shared>, options: GroupOptions) -> Self {
        Self { table, shared, options }
    }

    /// Works until the last handle is gone or the group is closed, and what waited is written. Where its lease is lost it ends too.
    ///
    /// # Errors
    /// [`ClientError`]: the lease is another's, or was lost; or the table is full.
    pub async fn run(self) -> Result<GroupStats, ClientError> {
        let outcome = match self.options.lease {
            None => self.drive().await,
            Some(options) => {
                let (lease, keeper) = self.table.lease(options).await?;
                let outcome = match select(pin!(self.drive()), pin!(keeper.run())).await {
                    Either::Left((outcome, _)) => outcome,
                    // Lost: the next commit says so.
                    Either::Right(((), driving)) => driving.await,
                };
                if lease.lost().is_none()
                    && let Err(error) = lease.release().await
                {
                    tracing::warn!(%error, "the lease of a table was not given up; it lapses");
                }
                outcome
            }
        };
        outcome.map(|()| *lock(&self.shared.stats))
    }

    async fn drive(&self) -> Result<(), ClientError> {
        let table = &self.table;
        let snapshot = table.session.catalogue(&table.db(), table.projection()).await?;
        let mut state = State::new(snapshot.entry().clone());
        let mut merges = FuturesUnordered::new();
        let mut done: Vec<Done> = Vec::new();
        loop {
            for (inputs, outcome) in std::mem::take(&mut done) {
                self.merged(&mut state, inputs, outcome);
            }
            beside(&mut merges, &mut done, self.measure(&mut state)).await?;
            while merges.len() < MERGES_MAX
                && let Some(inputs) = self.next_merge(&state)
            {
                state.merging.extend(inputs.iter().copied());
                merges.push(merge(table.clone(), inputs));
            }
            if !done.is_empty() {
                continue;
            }
            // Where no segment more may be live, a tick has room for what it folds in, or rows wait for a merge.
            let room = match state.next_live() > LIVE_SEGMENTS_MAX {
                true => state.room(),
                false => state.inline_rows,
            };
            if room == 0 {
                match merges.next().await {
                    Some(one) => done.push(one),
                    None if state.failures > 0 => {
                        if state.failures > self.options.retry.attempts {
                            return Err(ClientError::Op(OpRefusal::TooManyLive(table.projection())));
                        }
                        table.session.inner.transport.sleep(self.options.retry.pause_max).await;
                        state.held = false;
                    }
                    None if self.shared.queue.len() > 0 => {
                        return Err(ClientError::Op(OpRefusal::TooManyLive(table.projection())));
                    }
                    // With rows, merges begin.
                    None => {
                        if !self.shared.queue.ready().await {
                            return Ok(());
                        }
                    }
                }
                continue;
            }
            let has_rows = match state.ready.is_empty() {
                false if state.refused => {
                    // They wait for rows, or a while: each attempt is an operation in the log. A group that ends does without them.
                    let pause = table.session.inner.transport.sleep(self.options.retry.pause_max);
                    match beside(&mut merges, &mut done, select(pin!(self.shared.queue.ready()), pin!(pause))).await {
                        Either::Left((false, _)) => return Ok(()),
                        Either::Left((true, _)) => true,
                        Either::Right(_) => false,
                    }
                }
                false => self.shared.queue.len() > 0,
                true => match select(pin!(self.shared.queue.ready()), pin!(ended(&mut merges))).await {
                    Either::Left((false, _)) => return Ok(()),
                    Either::Left((true, _)) => true,
                    Either::Right((one, _)) => {
                        done.push(one);
                        continue;
                    }
                },
            };
            let max = room.min(self.options.tick_rows.max(1) as u64);
            let pending = if has_rows { self.shared.queue.take(max as usize) } else { Vec::new() };
            let certified = beside(&mut merges, &mut done, self.tick(&mut state, pending)).await?;
            (state.held, state.refused) = (false, !certified && !has_rows);
        }
    }

    /// Learns how many rows the live segments have that others made.
    async fn measure(&self, state: &mut State) -> Result<(), ClientError> {
        let strange: Vec<_> = state.entry.live.iter().filter(|root| !state.rows.contains_key(root)).copied().collect();
        if !strange.is_empty() {
            let views = self.table.session.views(&self.table.handle, &strange, &mut Meter::default()).await?;
            state.rows.extend(views.iter().map(|view| (view.root(), view.header().rows)));
        }
        Ok(())
    }

    /// What to merge from the members' copies: what is not here in memory, or too much for a tick.
    fn next_merge(&self, state: &State) -> Option<Vec<SegmentRoot>> {
        let chosen = tiers::choose(state.free(), SEGMENT_ROWS_MAX as u64);
        (!state.held && chosen.len() >= 2 && state.fold(self.shared.queue.len() as u64).is_empty()).then_some(chosen)
    }

    /// A merge has ended.
    fn merged(&self, state: &mut State, inputs: Vec<SegmentRoot>, outcome: Result<PreparedMerge, ClientError>) {
        inputs.iter().for_each(|root| _ = state.merging.remove(root));
        match outcome {
            Ok(merge) if merge.inputs.iter().all(|root| state.entry.live.contains(root)) => {
                state.failures = 0;
                state.ready.push(merge);
            }
            Ok(_) => lock(&self.shared.stats).merges_dropped += 1,
            Err(error) => {
                tracing::warn!(%error, "live segments were not merged; trying again with the next rows");
                lock(&self.shared.stats).merges_dropped += 1;
                (state.failures, state.held) = (state.failures + 1, true);
            }
        }
    }

    /// Writes the rows, and what merges have made ready, in one commit; answers everybody whose rows were in it. Says whether it is
    /// certified.
    async fn tick(&self, state: &mut State, pending: Vec<Pending>) -> Result<bool, ClientError> {
        let (rows, answers): (Vec<_>, Vec<_>) = pending.into_iter().map(|p| (p.row, p.answer)).unzip();
        let say = |answer: Result<Inserted, GroupError>| {
            for to in answers {
                // Who went away is not told.
                let _ = to.send(answer.clone());
            }
        };
        let count = rows.len() as u64;
        match self.write(state, &rows).await {
            Ok(inserted) => {
                lock(&self.shared.stats).rows += count;
                say(Ok(inserted));
                Ok(true)
            }
            Err(Settled::Unknown(error)) => {
                lock(&self.shared.stats).unknown += count;
                say(Err(GroupError::Unknown(Arc::new(error))));
                // What the table is like now is not known either.
                self.look(state).await;
                Ok(false)
            }
            Err(Settled::Failed(error)) => {
                lock(&self.shared.stats).failed += count;
                let ended = self.options.lease.and_then(|_| lease_is_over(&error));
                say(Err(GroupError::Failed(Arc::new(error))));
                self.look(state).await;
                ended.map_or(Ok(false), Err)
            }
            Err(Settled::Done(..) | Settled::Passed(_)) => unreachable!("a write ends done, failed or unknown"),
        }
    }

    async fn look(&self, state: &mut State) {
        let table = &self.table;
        if let Ok(snapshot) = table.session.catalogue(&table.db(), table.projection()).await {
            lock(&self.shared.stats).merges_dropped += state.take(snapshot.entry().clone());
        }
    }

    async fn write(&self, state: &mut State, rows: &[Vec<Value>]) -> Result<Inserted, Settled> {
        let mut rng = self.table.session.fork_rng();
        for attempt in 1.. {
            let tick = self.seal(state, rows).await.map_err(Settled::Failed)?;
            if tick.part.append.is_empty() && tick.part.retire.is_empty() {
                return Ok(Inserted { height: Height(0), version: state.entry.version });
            }
            match self.settle(&tick.part).await {
                Settled::Done(height, entry) => {
                    let version = entry.version;
                    self.done(state, tick, entry);
                    return Ok(Inserted { height, version });
                }
                Settled::Passed(entry) => {
                    let dropped = state.take(entry);
                    {
                        let mut stats = lock(&self.shared.stats);
                        stats.conflicts += 1;
                        stats.merges_dropped += dropped;
                    }
                    if attempt >= self.options.retry.attempts {
                        let (projection, attempts) = (self.table.projection(), attempt as usize);
                        return Err(Settled::Failed(ClientError::Moving { projection, attempts }));
                    }
                    let pause = self.options.retry.after(attempt, &mut rng);
                    self.table.session.inner.transport.sleep(pause).await;
                }
                other => return Err(other),
            }
        }
        unreachable!("the loop returns")
    }

    /// Seals the rows, with what is folded in, and gathers what merges made ready.
    async fn seal(&self, state: &mut State, rows: &[Vec<Value>]) -> Result<Tick, ClientError> {
        let table = &self.table;
        let mut part =
            Part { handle: table.handle.clone(), version: state.entry.version, append: Vec::new(), retire: Vec::new() };
        let (mut own, mut bytes, mut written, mut inline) = (None, 0, 0, 0);
        let fold = state.fold(rows.len() as u64);
        let mut batches: Vec<RecordBatch> = fold.iter().map(|root| state.plain[root].clone()).collect();
        if !rows.is_empty() {
            batches.push(batch(table, rows)?);
        }
        if !batches.is_empty() {
            let mut sealer = Sealer::new(table.handle.keys.clone());
            for batch in &batches {
                sealer.push(batch)?;
            }
            let segment = table.seal(sealer, &mut SealStats::default(), &mut 0, &mut |_| {}).await?;
            state.measure(&segment);
            (bytes, written) = (segment.byte_len(), segment.rows());
            part.append.push(table.deliver(&segment, &mut inline, &mut |_| {}).await?);
            let schema = table.schema().arrow();
            let all = concat_batches(&schema, &batches).map_err(crate::open::OpenError::Gather)?;
            own = Some((segment.root(), all));
        }
        part.retire.extend(fold.iter().copied());
        let mut merges = Vec::new();
        for merge in &state.ready {
            part.retire.extend(merge.inputs.iter().copied());
            if let Some((reference, root)) = &merge.output {
                part.append.push(reference.clone());
                merges.push((*root, merge.rows));
            }
            (bytes, written) = (bytes + merge.bytes, written + merge.rows);
        }
        Ok(Tick { part, own, folded: fold.len(), merges, merged: state.ready.len(), rows: written, bytes })
    }

    /// Takes over what a certified tick did.
    fn done(&self, state: &mut State, tick: Tick, entry: CatalogueEntry) {
        if let Some((root, rows)) = tick.own {
            let count = rows.num_rows() as u64;
            state.rows.insert(root, count);
            if count <= state.inline_rows {
                state.plain.insert(root, rows);
            }
        }
        state.rows.extend(tick.merges);
        state.ready.clear();
        state.take(entry);
        let live = state.entry.live.len() as u64;
        let mut stats = lock(&self.shared.stats);
        stats.commits += 1;
        stats.merges += tick.merged as u64 + u64::from(tick.folded > 0);
        stats.rows_written += tick.rows;
        stats.bytes_written += tick.bytes;
        (stats.live, stats.live_max) = (live, stats.live_max.max(live));
    }

    /// Has a part committed, and finds out what became of it: the same sealed bytes are sent until the certified catalogue shows them, or
    /// is past the version that they were made for. Of all that read one version at most one commit is done.
    async fn settle(&self, part: &Part) -> Settled {
        let (session, db) = (&self.table.session, self.table.db());
        let mut rng = session.fork_rng();
        // Whether every attempt so far was refused for certain.
        let mut undone = true;
        for attempt in 1.. {
            let error = match session.commit(&db, std::slice::from_ref(part), &[]).await {
                Ok(mut shown) => {
                    let Shown { height, entry, .. } = shown.pop().expect("one a part");
                    return Settled::Done(height, entry);
                }
                Err(error) => error,
            };
            let overtaken = start_over(&error) || matches!(error, ClientError::Op(OpRefusal::Repeated(_)));
            undone &= error.is_undone();
            let full = matches!(error, ClientError::Op(OpRefusal::Full { .. }));
            if undone && !overtaken && !full {
                return Settled::Failed(error);
            }
            if let Ok(snapshot) = session.catalogue(&db, part.handle.projection).await {
                let (entry, height) = (snapshot.entry(), snapshot.checkpoint().height);
                let live = |root: &SegmentRoot| entry.live.contains(root);
                if entry.version > part.version {
                    let shown = part.roots().iter().all(live) && !part.retire.iter().any(live);
                    return match shown {
                        true => Settled::Done(height, entry.clone()),
                        // Nobody but the holder of a lease can have retired what it appended.
                        false if undone || self.options.lease.is_some() => Settled::Passed(entry.clone()),
                        false => Settled::Unknown(error),
                    };
                }
            }
            if attempt >= self.options.retry.attempts {
                return if undone { Settled::Failed(error) } else { Settled::Unknown(error) };
            }
            tracing::warn!(attempt, %error, "a group's commit is sent again");
            session.inner.transport.sleep(self.options.retry.after(attempt, &mut rng)).await;
        }
        unreachable!("the loop returns")
    }
}

/// The same error once more, where it says that the lease is over: nothing can be written any more.
fn lease_is_over(error: &ClientError) -> Option<ClientError> {
    match error {
        ClientError::LeaseLost { table, why } => Some(ClientError::LeaseLost { table: *table, why: why.clone() }),
        ClientError::Leased { table, holder, until_ms, now_ms } => {
            let (table, holder, until_ms, now_ms) = (*table, *holder, *until_ms, *now_ms);
            Some(ClientError::Leased { table, holder, until_ms, now_ms })
        }
        _ => None,
    }
}

/// Rows that were checked, as a batch.
fn batch<T: Transport>(table: &Table<T>, rows: &[Vec<Value>]) -> Result<RecordBatch, ClientError> {
    let mut new = NewRows::new(table.schema());
    for row in rows {
        new.push(table.schema(), row.clone(), Vec::new())?;
    }
    new.finish(table.schema())
}

/// Merges segments, which it names again at the end.
async fn merge<T: Transport>(table: Table<T>, inputs: Vec<SegmentRoot>) -> Done {
    let merged = table.merged(&inputs).await;
    (inputs, merged)
}
