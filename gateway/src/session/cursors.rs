//! Cursors of SQL: DECLARE, FETCH, MOVE, CLOSE.
//!
//! Rule    rows are fetched as they are asked for; a cursor that may go back keeps those that it has shown, and one WITH HOLD has all of
//!         them from the start, at most [`ROWS_MAX`].
//! Place   0 before the first row, n + 1 after the last, as PostgreSQL counts.
//! Source  PostgreSQL 15, "DECLARE", "FETCH"

use super::outcome::{Outcome, Tag};
use super::{SqlSession, Transaction, rows};
use crate::error::{SqlError, SqlState};
use crate::sql::fold;
use crate::sql::work::Work;
use crate::sql::write::ROWS_MAX;
use datafusion::arrow::array::RecordBatch;
use datafusion::arrow::compute::concat_batches;
use datafusion::arrow::datatypes::SchemaRef;
use datafusion::physical_plan::SendableRecordBatchStream;
use datafusion::sql::sqlparser::ast::{self, CloseCursor, FetchDirection};
use futures::StreamExt;
use std::sync::{Arc, Mutex, PoisonError};

/// Most cursors that a session has open.
const CURSORS_MAX: usize = 256;

/// A query whose rows are fetched in parts.
pub(super) struct Cursor {
    schema: SchemaRef,
    /// `None` once it has ended. A lock because a session is shared between threads, though by one at a time.
    stream: Option<Mutex<SendableRecordBatchStream>>,
    /// Rows that were read, from `first` on.
    read: Vec<RecordBatch>,
    /// How many rows came before those.
    first: u64,
    place: u64,
    /// Whether it may go back: not at all where NO SCROLL was said or nothing.
    scroll: bool,
    pub(super) hold: bool,
}

fn not_back() -> SqlError {
    SqlError::new(SqlState::ObjectNotInState, "cursor can only scan forward")
        .hint("Declare it with SCROLL option to enable backward scan.")
}

impl Cursor {
    /// Rows that were read, counted from the first of the query.
    fn end(&self) -> u64 {
        self.first + self.read.iter().map(|b| b.num_rows() as u64).sum::<u64>()
    }

    /// Reads until `count` rows are there, or the last.
    async fn fill(&mut self, count: u64) -> Result<(), SqlError> {
        while self.end() < count {
            let Some(stream) = &mut self.stream else { break };
            match stream.get_mut().unwrap_or_else(PoisonError::into_inner).next().await {
                Some(batch) => self.read.push(batch?),
                None => self.stream = None,
            }
            if self.end() - self.first > ROWS_MAX as u64 {
                let why = format!("a cursor keeps more than {ROWS_MAX} rows");
                return Err(SqlError::new(SqlState::ProgramLimitExceeded, why)
                    .hint("fetch fewer at once, or declare it NO SCROLL"));
            }
        }
        Ok(())
    }

    /// Row `number`, from 1, as a batch; none where it is not there.
    fn slice(&self, number: u64, count: u64) -> Result<RecordBatch, SqlError> {
        let (mut skip, mut left) = (number.saturating_sub(self.first + 1), count);
        let mut parts = Vec::new();
        for batch in &self.read {
            let held = batch.num_rows() as u64;
            if skip >= held {
                skip -= held;
                continue;
            }
            let take = left.min(held - skip);
            parts.push(batch.slice(skip as usize, take as usize));
            (skip, left) = (0, left - take);
            if left == 0 {
                break;
            }
        }
        concat_batches(&self.schema, &parts).map_err(|e| datafusion::common::DataFusionError::from(e).into())
    }

    /// The next `count` rows, or all.
    async fn forward(&mut self, count: Option<u64>) -> Result<RecordBatch, SqlError> {
        let from = self.place + 1;
        let until = count.map_or(u64::MAX, |c| self.place.saturating_add(c));
        self.fill(until).await?;
        let last = until.min(self.end());
        let rows = self.slice(from, (last + 1).saturating_sub(from))?;
        // The place after the last row is one beyond it.
        self.place = if self.end() < until { self.end() + 1 } else { until };
        if !self.scroll {
            // What was shown is not asked for again.
            let rest = self.end() - last;
            let rest = self.slice(last + 1, rest)?;
            (self.read, self.first) = (vec![rest], last);
        }
        Ok(rows)
    }

    /// The `count` rows before, the nearest first, or all.
    fn backward(&mut self, count: Option<u64>) -> Result<RecordBatch, SqlError> {
        let before = self.place.saturating_sub(1).min(self.end());
        let take = count.map_or(before, |c| c.min(before));
        let all = self.slice(before + 1 - take, take)?;
        self.place = match count {
            Some(count) if count <= before => before + 1 - take,
            _ => 0,
        };
        let order: datafusion::arrow::array::UInt32Array = (0..take as u32).rev().collect();
        datafusion::arrow::compute::take_record_batch(&all, &order)
            .map_err(|e| datafusion::common::DataFusionError::from(e).into())
    }

    /// One row by its number; from the last for negative ones.
    async fn absolute(&mut self, number: i64) -> Result<RecordBatch, SqlError> {
        let target = match u64::try_from(number) {
            Ok(number) => number,
            Err(_) => {
                self.fill(u64::MAX).await?;
                (self.end() + 1).saturating_sub(number.unsigned_abs())
            }
        };
        if target <= self.first && target > 0 || !self.scroll && target < self.place {
            return Err(not_back());
        }
        self.fill(target).await?;
        self.place = target.min(self.end() + 1);
        self.slice(target, u64::from(target > 0 && target <= self.end()))
    }

    async fn fetch(&mut self, direction: &FetchDirection) -> Result<RecordBatch, SqlError> {
        let number = |value: &ast::ValueWithSpan| -> Result<i64, SqlError> {
            value
                .value
                .to_string()
                .parse()
                .map_err(|_| SqlError::new(SqlState::SyntaxError, "FETCH takes a number of rows"))
        };
        let steps = match direction {
            FetchDirection::Next => Some(1),
            FetchDirection::Prior => Some(-1),
            FetchDirection::Count { limit } => Some(number(limit)?),
            FetchDirection::Forward { limit } => Some(limit.as_ref().map_or(Ok(1), number)?),
            FetchDirection::Backward { limit } => Some(-limit.as_ref().map_or(Ok(1), number)?),
            _ => None,
        };
        if steps.is_some_and(|n| n < 0) && !self.scroll {
            return Err(not_back());
        }
        match (direction, steps) {
            (_, Some(0)) => {
                let there = self.place > self.first && self.place <= self.end();
                self.slice(self.place, u64::from(there))
            }
            (_, Some(n)) if n > 0 => self.forward(Some(n.unsigned_abs())).await,
            (_, Some(n)) => self.backward(Some(n.unsigned_abs())),
            (FetchDirection::All | FetchDirection::ForwardAll, _) => self.forward(None).await,
            (FetchDirection::BackwardAll, _) if self.scroll => self.backward(None),
            (FetchDirection::First, _) => self.absolute(1).await,
            (FetchDirection::Last, _) => self.absolute(-1).await,
            (FetchDirection::Absolute { limit }, _) => self.absolute(number(limit)?).await,
            (FetchDirection::Relative { limit }, _) => {
                let target = i64::try_from(self.place).unwrap_or(i64::MAX).saturating_add(number(limit)?);
                self.absolute(target.max(0)).await
            }
            _ => Err(not_back()),
        }
    }
}

impl SqlSession {
    /// DECLARE.
    pub(super) async fn declare(&mut self, declares: &[ast::Declare], work: &Arc<Work>) -> Result<Outcome, SqlError> {
        let [ast::Declare { names, for_query: Some(query), scroll, hold, .. }] = declares else {
            return Err(SqlError::unsupported("DECLARE of anything but one cursor"));
        };
        let name = names.first().map(fold).unwrap_or_default();
        let hold = *hold == Some(true);
        if !hold && !matches!(self.transaction, Transaction::Open(_)) {
            let why = "DECLARE CURSOR can only be used in transaction blocks";
            return Err(SqlError::new(SqlState::NoActiveTransaction, why));
        }
        if self.cursors.contains_key(&name) {
            return Err(SqlError::new(SqlState::DuplicateCursor, format!("cursor \"{name}\" already exists")));
        }
        if self.cursors.len() >= CURSORS_MAX {
            let why = format!("a session has at most {CURSORS_MAX} cursors");
            return Err(SqlError::new(SqlState::ProgramLimitExceeded, why));
        }
        let Outcome::Rows { schema, stream, .. } = self.query(query, work, false).await? else {
            return Err(SqlError::new(SqlState::InternalError, "a query without rows"));
        };
        let scroll = *scroll == Some(true);
        let mut cursor =
            Cursor { schema, stream: Some(Mutex::new(stream)), read: Vec::new(), first: 0, place: 0, scroll, hold };
        if hold {
            cursor.fill(u64::MAX).await?;
        }
        self.cursors.insert(name, cursor);
        Ok(Outcome::Done(Tag::Command("DECLARE CURSOR")))
    }

    /// The columns of a cursor's rows; `None` where there is no such cursor.
    #[must_use]
    pub fn cursor(&self, name: &str) -> Option<SchemaRef> {
        self.cursors.get(name).map(|c| Arc::clone(&c.schema))
    }

    fn cursor_name(&self, name: &ast::Ident) -> Result<String, SqlError> {
        let name = fold(name);
        if self.cursors.contains_key(&name) {
            return Ok(name);
        }
        Err(SqlError::new(SqlState::UndefinedCursor, format!("cursor \"{name}\" does not exist")))
    }

    /// The columns of a cursor's rows.
    pub(super) fn cursor_columns(&self, name: &ast::Ident) -> Result<SchemaRef, SqlError> {
        Ok(Arc::clone(&self.cursors[&self.cursor_name(name)?].schema))
    }

    /// FETCH, or MOVE, which shows no row.
    pub(super) async fn fetch(
        &mut self,
        name: &ast::Ident,
        direction: &FetchDirection,
        moves: bool,
    ) -> Result<Outcome, SqlError> {
        let name = self.cursor_name(name)?;
        // Taken out while it is read: where that fails, it is gone.
        let Some(mut cursor) = self.cursors.remove(&name) else { unreachable!("found just above") };
        let batch = cursor.fetch(direction).await;
        let schema = Arc::clone(&cursor.schema);
        let refused = matches!(&batch, Err(error) if error.state == SqlState::ObjectNotInState);
        if batch.is_ok() || refused {
            self.cursors.insert(name, cursor);
        }
        let batch = batch?;
        if moves {
            return Ok(Outcome::Done(Tag::Move(batch.num_rows() as u64)));
        }
        Ok(rows(schema, vec![batch], Tag::Fetch))
    }

    /// CLOSE.
    pub(super) fn close_cursor(&mut self, cursor: &CloseCursor) -> Result<Outcome, SqlError> {
        match cursor {
            CloseCursor::All => self.cursors.clear(),
            CloseCursor::Specific { name } => {
                let name = self.cursor_name(name)?;
                self.cursors.remove(&name);
            }
        }
        Ok(Outcome::Done(Tag::Command("CLOSE CURSOR")))
    }

    /// The cursors of a transaction end with it, those WITH HOLD where it failed.
    pub(super) fn end_cursors(&mut self, committed: bool) {
        self.cursors.retain(|_, cursor| committed && cursor.hold);
    }
}
