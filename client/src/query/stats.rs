//! How a table stands: its live segments, rows, rows that only cancel each other, bytes.
//!
//! Says    stored rows and bytes are what headers say under the certified root; live rows are the sum of the weights, as COUNT(*) is. A row that
//!         was retracted and its retraction are two dead rows, until segments are merged.

use crate::error::ClientError;
use crate::range::KeyRange;
use crate::seal::CELL_BYTES;
use crate::session::{Meter, Table};
use crate::transport::Transport;
use fluence_types::{DbRoot, Height, SegmentRoot, Version};

/// One live segment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SegmentStats {
    /// Its root.
    pub root: SegmentRoot,
    /// Rows in it, retractions among them.
    pub rows: u64,
    /// Its cells.
    pub cells: u64,
}

impl SegmentStats {
    /// Bytes that a member keeps of it, without the tree's 2 %.
    #[must_use]
    pub const fn bytes(&self) -> u64 {
        self.cells * CELL_BYTES as u64
    }
}

/// How a table stands at one certified height.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TableStats {
    /// The height.
    pub height: Height,
    /// The database root there.
    pub root: DbRoot,
    /// Version of the projection.
    pub version: Version,
    /// The live segments, in order of arrival.
    pub segments: Vec<SegmentStats>,
    /// Rows of the table.
    pub rows: u64,
    /// Cells of all segments that the database keeps, superseded ones included.
    pub database_cells: u64,
}

impl TableStats {
    /// Rows in all live segments.
    #[must_use]
    pub fn stored_rows(&self) -> u64 {
        self.segments.iter().map(|s| s.rows).sum()
    }

    /// Rows that cancel each other, or are padding.
    #[must_use]
    pub fn dead_rows(&self) -> u64 {
        self.stored_rows().saturating_sub(self.rows)
    }

    /// Bytes that a member keeps of the live segments.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.segments.iter().map(SegmentStats::bytes).sum()
    }

    /// Stored rows for a row of the table; 1 where nothing was retracted.
    #[must_use]
    pub fn amplification(&self) -> Option<f64> {
        (self.rows > 0).then(|| self.stored_rows() as f64 / self.rows as f64)
    }
}

impl<T: Transport> Table<T> {
    /// How the table stands.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn stats(&self) -> Result<TableStats, ClientError> {
        self.session.freshly(&self.handle, |stats: &TableStats| stats.version, || self.try_stats()).await
    }

    async fn try_stats(&self) -> Result<TableStats, ClientError> {
        let mut meter = Meter::default();
        let positions = self.positions(&KeyRange::ALL, &mut meter).await?;
        let (sums, answer) = self.field_sums(&positions, &[self.schema().count_field()], &mut meter).await?;
        let segment = |view: &std::sync::Arc<crate::open::SegmentView>| SegmentStats {
            root: view.root(),
            rows: view.header().rows,
            cells: view.header().segment_cells(),
        };
        Ok(TableStats {
            height: answer.checkpoint().height,
            root: answer.checkpoint().root,
            version: answer.entry().version,
            segments: positions.views.iter().map(segment).collect(),
            rows: u64::try_from(&sums[0]).map_err(|_| ClientError::Unmatched)?,
            database_cells: answer.snapshot().opening().db.stored_cells,
        })
    }
}
