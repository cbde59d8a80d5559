//! Compaction: several segments into as few as possible, without what was retracted; and clearing, which keeps none.
//!
//! Source  DESIGN section 3; `docs/protocol/segment.md`

use super::{Committed, start_over};
use crate::error::ClientError;
use crate::query::Direction;
use crate::range::KeyRange;
use crate::seal::{SEGMENT_ROWS_MAX, SealStats, Sealer};
use crate::session::{ATTEMPTS, Table};
use crate::transport::Transport;

impl<T: Transport> Table<T> {
    /// Replaces all live segments by as few as possible, without retracted rows. `None` where there is nothing to gain: at most one
    /// live segment, and no retraction in it.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn compact(&self) -> Result<Option<Committed>, ClientError> {
        for attempt in 1.. {
            match self.try_compact().await {
                Err(error) if start_over(&error) && attempt < ATTEMPTS => self.session.forget_entry(&self.handle),
                other => return other,
            }
        }
        unreachable!("the loop returns")
    }

    /// Has the table hold nothing: all live segments are retired, unread. `None` where it held nothing.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn clear(&self) -> Result<Option<Committed>, ClientError> {
        for attempt in 1.. {
            let entry = self.session.entry(&self.handle).await?;
            if entry.live.is_empty() {
                return Ok(None);
            }
            match self.commit(Vec::new(), entry.live.to_vec(), entry.version).await {
                Err(error) if start_over(&error) && attempt < ATTEMPTS => self.session.forget_entry(&self.handle),
                other => return other.map(Some),
            }
        }
        unreachable!("the loop returns")
    }

    async fn try_compact(&self) -> Result<Option<Committed>, ClientError> {
        let columns: Vec<usize> = (0..self.schema().columns().len()).collect();
        let scanned = self.scan(&columns, &KeyRange::ALL, None, Direction::Forwards).await?;
        let live = scanned.entry.live.to_vec();
        if live.is_empty() || live.len() == 1 && scanned.rows == scanned.evidence.rows {
            return Ok(None);
        }
        let (mut seal, mut sealed_rows, mut inline) = (SealStats::default(), 0, 0);
        let mut refs = Vec::new();
        let mut sealer = Sealer::new(self.handle.keys.clone());
        for batch in &scanned.batches {
            let mut at = 0;
            while at < batch.num_rows() {
                let take = (SEGMENT_ROWS_MAX - sealer.rows()).min(batch.num_rows() - at);
                sealer.push(&batch.slice(at, take))?;
                at += take;
                if sealer.rows() == SEGMENT_ROWS_MAX {
                    let full = std::mem::replace(&mut sealer, Sealer::new(self.handle.keys.clone()));
                    let segment = self.seal(full, &mut seal, &mut sealed_rows, &mut |_| {}).await?;
                    refs.push(self.deliver(&segment, &mut inline, &mut |_| {}).await?);
                }
            }
        }
        if sealer.rows() > 0 {
            let segment = self.seal(sealer, &mut seal, &mut sealed_rows, &mut |_| {}).await?;
            refs.push(self.deliver(&segment, &mut inline, &mut |_| {}).await?);
        }
        let mut committed = self.commit(refs, live, scanned.entry.version).await?;
        (committed.rows, committed.seal) = (scanned.rows, seal);
        Ok(Some(committed))
    }
}
