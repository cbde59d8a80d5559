//! Rows of named segments as a stream: bounded memory for any number of rows.
//!
//! Version  the segments are the live ones of one version. Others may be added while the stream runs; where one of these is retired, nodes
//!          open it no more, and the stream ends in an error.
//! Source   `docs/protocol/query.md`, "Rows, MIN, MAX"

use super::Select;
use super::scan::{Cursor, Round, merge};
use crate::error::ClientError;
use crate::open::SegmentView;
use crate::range::Bounds;
use crate::session::{Meter, Table, offload};
use crate::transport::Transport;
use arrow_array::RecordBatch;
use fluence_types::SegmentRoot;
use std::sync::Arc;

/// Rows in key order, retractions cancelled.
pub struct RowStream<T> {
    table: Table<T>,
    segments: Vec<SegmentRoot>,
    views: Vec<Arc<SegmentView>>,
    cursors: Vec<Cursor>,
    bounds: Bounds,
    read: Vec<usize>,
    key_columns: usize,
    places: Vec<usize>,
    limit: Option<u64>,
}

impl<T> std::fmt::Debug for RowStream<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "RowStream({:?}, {} segments)", self.table, self.segments.len())
    }
}

impl<T: Transport> Table<T> {
    /// Streams the rows of a selection from `segments`: all that were live at one version, else retractions may lack their rows.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn stream(&self, segments: &[SegmentRoot], select: &Select) -> Result<RowStream<T>, ClientError> {
        let bounds = select.range.bounds(self.schema())?;
        let (read, key_columns, places) = self.read_columns(&self.columns_of(select)?);
        let views = self.session.views(&self.handle, segments, &mut Meter::default()).await?;
        let cursors = views.iter().map(|v| Cursor::new(v.candidates(&bounds))).collect();
        let (table, segments, limit) = (self.clone(), segments.to_vec(), select.limit);
        Ok(RowStream { table, segments, views, cursors, bounds, read, key_columns, places, limit })
    }
}

impl<T: Transport> RowStream<T> {
    /// The next rows; none at the end.
    ///
    /// # Errors
    /// [`ClientError`]; nothing that does not verify is returned.
    pub async fn next(&mut self) -> Result<Option<RecordBatch>, ClientError> {
        while !self.cursors.iter().all(Cursor::done) && self.limit != Some(0) {
            let wanted = self.table.next_cells(&self.views, &mut self.cursors, &self.read, self.limit)?;
            let answer = self.table.open_of(&self.segments, &wanted).await?;
            let job = Round {
                keys: self.table.handle.keys.clone(),
                views: self.views.clone(),
                read: self.read.clone(),
                key_columns: self.key_columns,
                bounds: self.bounds.clone(),
            };
            let cursors = std::mem::take(&mut self.cursors);
            self.cursors = offload(move || job.open(&answer, cursors)).await?;
            let merged = merge(&mut self.cursors, &self.places, self.limit, true)?;
            if let Some((batch, _)) = merged.batch {
                self.limit = self.limit.map(|l| l.saturating_sub(batch.num_rows() as u64));
                return Ok(Some(batch));
            }
        }
        Ok(None)
    }
}
