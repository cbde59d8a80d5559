//! Transaction blocks of a session: BEGIN, COMMIT, ROLLBACK, savepoints, and several statements in one string.

use super::outcome::{Notice, Outcome, Tag};
use super::{SqlSession, Transaction, ends_transaction};
use crate::error::{SqlError, SqlState};
use crate::sql::context::Current;
use crate::sql::work::Work;
use crate::sql::{Statement, settings};
use datafusion::sql::sqlparser::ast;
use std::sync::Arc;

impl SqlSession {
    /// Begins the transaction that several statements sent as one string are. `false` where one is open, or they begin or end some
    /// themselves.
    ///
    /// # Errors
    /// [`SqlError`] where the catalogue cannot be read.
    pub async fn begin_block(&mut self, statements: &[Statement]) -> Result<bool, SqlError> {
        let control = |s: &Statement| {
            ends_transaction(&s.0)
                || matches!(
                    s.0,
                    ast::Statement::StartTransaction { .. }
                        | ast::Statement::Savepoint { .. }
                        | ast::Statement::Copy { .. }
                )
        };
        if !matches!(self.transaction, Transaction::Idle) || statements.iter().any(control) {
            return Ok(false);
        }
        self.start().await?;
        self.implicit = true;
        Ok(true)
    }

    /// Begins the transaction that the statements of a pipeline are, up to its Sync, where none is open.
    ///
    /// # Errors
    /// [`SqlError`] where the catalogue cannot be read.
    pub async fn begin_pipeline(&mut self, statement: &Statement) -> Result<(), SqlError> {
        let control = ends_transaction(&statement.0) || matches!(statement.0, ast::Statement::StartTransaction { .. });
        if matches!(self.transaction, Transaction::Idle) && !control {
            self.start().await?;
            self.implicit = true;
        }
        Ok(())
    }

    /// Ends it at Sync: all of it happens, or nothing where something of it failed.
    ///
    /// # Errors
    /// [`SqlError`] where it cannot be committed.
    pub async fn end_pipeline(&mut self) -> Result<(), SqlError> {
        if std::mem::take(&mut self.implicit) {
            let done = matches!(self.transaction, Transaction::Open(_));
            self.end_block(done).await?;
        }
        Ok(())
    }

    /// Ends it: all of it happens, or nothing.
    ///
    /// # Errors
    /// [`SqlError`] where it cannot be committed.
    pub async fn end_block(&mut self, done: bool) -> Result<(), SqlError> {
        self.implicit = false;
        if done {
            self.commit().await?
        } else {
            self.rollback().await?
        };
        Ok(())
    }

    pub(super) fn open(&self) -> Result<&Arc<Work>, SqlError> {
        match &self.transaction {
            Transaction::Open(work) => Ok(work),
            _ => Err(SqlError::new(SqlState::NoActiveTransaction, "there is no transaction in progress")),
        }
    }

    pub(super) async fn start(&mut self) -> Result<Outcome, SqlError> {
        if matches!(self.transaction, Transaction::Idle) {
            let pins = &self.gateway.committer.pins;
            let (block, work) = (pins.block().await, Work::new(pins));
            self.begin(&work, false).await?;
            self.transaction = Transaction::Open(work);
            self.block = Some(block);
            self.read_only = self.settings.is_on(settings::READ_ONLY);
            (self.before, self.after) = (self.settings.clone(), self.settings.clone());
        } else if std::mem::take(&mut self.implicit) {
            // What was sent together with BEGIN belongs to what it begins.
        } else {
            let message = "there is already a transaction in progress".to_owned();
            self.notices.push(Notice { severity: "WARNING", message });
        }
        Ok(Outcome::Done(Tag::Command("BEGIN")))
    }

    pub(super) async fn commit(&mut self) -> Result<Outcome, SqlError> {
        self.implicit = false;
        let _ends_with_this = self.block.take();
        match std::mem::replace(&mut self.transaction, Transaction::Idle) {
            Transaction::Open(work) => {
                let done = work.commit(&self.gateway.committer, &self.shared.get().catalog).await;
                self.end_cursors(done.is_ok());
                self.settings = if done.is_ok() { self.after.clone() } else { self.before.clone() };
                if done.is_err() {
                    self.cleared.clear();
                    self.gateway.forget_catalog().await;
                }
                done?;
                self.committed(&work).await;
                Ok(Outcome::Done(Tag::Command("COMMIT")))
            }
            Transaction::Failed => {
                self.cleared.clear();
                self.settings = self.before.clone();
                self.end_cursors(false);
                Ok(Outcome::Done(Tag::Command("ROLLBACK")))
            }
            Transaction::Idle => {
                self.notices
                    .push(Notice { severity: "WARNING", message: "there is no transaction in progress".to_owned() });
                Ok(Outcome::Done(Tag::Command("COMMIT")))
            }
        }
    }

    pub(super) async fn rollback(&mut self) -> Result<Outcome, SqlError> {
        if matches!(self.transaction, Transaction::Idle) {
            self.notices
                .push(Notice { severity: "WARNING", message: "there is no transaction in progress".to_owned() });
        }
        if !matches!(self.transaction, Transaction::Idle) {
            self.settings = self.before.clone();
            self.end_cursors(false);
        }
        self.transaction = Transaction::Idle;
        self.block = None;
        self.implicit = false;
        self.cleared.clear();
        Ok(Outcome::Done(Tag::Command("ROLLBACK")))
    }

    pub(super) fn rollback_to(&mut self, name: &str) -> Result<Outcome, SqlError> {
        // A failed transaction is alive again from the savepoint on: its work is what the planner's tables still show.
        let work = self.shared.get().work;
        if matches!(self.transaction, Transaction::Idle) {
            return Err(SqlError::new(
                SqlState::NoActiveTransaction,
                "ROLLBACK TO SAVEPOINT can only be used in transaction blocks",
            ));
        }
        // What was created since is not known any more, and what was dropped since is not cleared.
        let (catalog, cleared) = work.rollback_to(name)?;
        self.cleared.truncate(cleared);
        self.shared.set(Current { catalog, work: Arc::clone(&work) });
        self.transaction = Transaction::Open(work);
        Ok(Outcome::Done(Tag::Command("ROLLBACK")))
    }
}
