//! One connection's session: what drivers and the shell talk to.
//!
//! ```text
//! parse ── prepare ── execute ──> rows, a command tag, or a COPY that goes on
//! ```
//! Rooms     `outcome` what it says, `block` transactions, `copying` COPY, `cursors` DECLARE and FETCH
//! Contract  one statement at a time; a future that is dropped cancels the statement, and an open transaction has failed then.

mod block;
mod copying;
mod cursors;
mod outcome;

pub use crate::gateway::{Gateway, GatewayOptions};
pub use crate::sql::Statement;
pub use crate::sql::work::Cost;
pub use outcome::{CopyFormat, Notice, Outcome, Prepared, Tag, TransactionStatus};

use crate::error::{SqlError, SqlState};
use crate::pins::Block;
use crate::sql::catalog::TableDef;
use crate::sql::context::{Current, Shared};
use crate::sql::settings::{self, Settings};
use crate::sql::work::Work;
use crate::sql::write::{Cx, Written};
use crate::sql::{self, copy, explain, fold, names, origins, params, relation};
use copying::CopyingIn;
use cursors::Cursor;
use datafusion::arrow::array::{RecordBatch, RecordBatchOptions, StringArray};
use datafusion::arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use datafusion::common::DataFusionError;
use datafusion::logical_expr::LogicalPlan;
use datafusion::physical_plan::SendableRecordBatchStream;
use datafusion::physical_plan::stream::{RecordBatchReceiverStreamBuilder, RecordBatchStreamAdapter};
use datafusion::prelude::SessionContext;
use datafusion::scalar::ScalarValue;
use datafusion::sql::sqlparser::ast;
use futures::StreamExt;
use outcome::Ended;
use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// Where a session's transaction stands.
enum Transaction {
    Idle,
    Open(Arc<Work>),
    Failed,
}

/// One connection's session.
pub struct SqlSession {
    gateway: Arc<Gateway>,
    context: SessionContext,
    shared: Arc<Shared>,
    user: String,
    number: i32,
    settings: Settings,
    /// The settings to go back to: where the transaction began, and those that SET LOCAL leaves behind.
    before: Settings,
    after: Settings,
    /// The settings that the client was told of last.
    told: Settings,
    cursors: HashMap<String, Cursor>,
    transaction: Transaction,
    /// Merges wait for the open transaction.
    block: Option<Block>,
    /// Whether the open transaction is that of statements sent together, which nobody has begun by a word.
    implicit: bool,
    /// Whether the open transaction only reads.
    read_only: bool,
    /// Physical tables that hold nothing that is named any more, once the transaction is committed.
    cleared: Vec<String>,
    notices: Vec<Notice>,
    /// The cost of a statement whose rows are going out, to be told once they have ended.
    owed: Option<(Arc<Work>, Arc<AtomicBool>)>,
    /// What the last statement read by.
    last: Arc<Work>,
    copy: Option<CopyingIn>,
    /// Statements that PREPARE named.
    named: HashMap<String, Prepared>,
}

impl std::fmt::Debug for SqlSession {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "SqlSession({:?})", self.user)
    }
}

fn in_failed() -> SqlError {
    let why = "current transaction is aborted, commands ignored until end of transaction block";
    SqlError::new(SqlState::InFailedTransaction, why)
}

/// One column of text with one row.
fn one_text(name: &str, value: &str) -> Outcome {
    let schema = Arc::new(Schema::new(vec![Field::new(name, DataType::Utf8, false)]));
    let batch = RecordBatch::try_new(Arc::clone(&schema), vec![Arc::new(StringArray::from(vec![value]))])
        .expect("one row of one column");
    rows(schema, vec![batch], Tag::Select)
}

fn rows(schema: SchemaRef, batches: Vec<RecordBatch>, tag: Tag) -> Outcome {
    let stream = futures::stream::iter(batches.into_iter().map(Ok));
    let stream = Box::pin(RecordBatchStreamAdapter::new(Arc::clone(&schema), stream));
    Outcome::Rows { schema, stream, tag }
}

/// The same rows, computed in a task of their own: who waits for them can be stopped while it computes. The task ends with the stream.
fn apart(mut rows: SendableRecordBatchStream) -> SendableRecordBatchStream {
    let mut apart = RecordBatchReceiverStreamBuilder::new(rows.schema(), 1);
    let to = apart.tx();
    apart.spawn(async move {
        while let Some(batch) = rows.next().await {
            // Nobody waits any more, or it has ended with an error.
            let failed = batch.is_err();
            if to.send(batch).await.is_err() || failed {
                break;
            }
        }
        Ok(())
    });
    apart.build()
}

impl SqlSession {
    /// A session without a transaction.
    pub(crate) fn new(gateway: Arc<Gateway>, context: SessionContext, shared: Arc<Shared>, user: &str) -> Self {
        Self {
            gateway,
            context,
            shared,
            user: user.to_owned(),
            number: 0,
            settings: Settings::default(),
            before: Settings::default(),
            after: Settings::default(),
            told: Settings::default(),
            cursors: HashMap::new(),
            transaction: Transaction::Idle,
            block: None,
            implicit: false,
            read_only: false,
            cleared: Vec::new(),
            notices: Vec::new(),
            owed: None,
            last: Arc::default(),
            copy: None,
            named: HashMap::new(),
        }
    }

    /// The statements of a text, in order.
    ///
    /// # Errors
    /// [`SqlState::SyntaxError`].
    pub fn parse(&self, text: &str) -> Result<Vec<Statement>, SqlError> {
        sql::parse(text)
    }

    /// Where the session stands with its transaction.
    #[must_use]
    pub const fn status(&self) -> TransactionStatus {
        match self.transaction {
            Transaction::Idle => TransactionStatus::Idle,
            Transaction::Open(_) => TransactionStatus::Open,
            Transaction::Failed => TransactionStatus::Failed,
        }
    }

    /// Settings that have changed since they were last asked for, of those that the protocol reports.
    pub fn take_changes(&mut self) -> Vec<(String, String)> {
        let changes = self.settings.changes(&self.told);
        if !changes.is_empty() {
            self.told = self.settings.clone();
        }
        changes
    }

    /// The number by which the server knows the session, as `pg_backend_pid()` gives it.
    pub const fn identify(&mut self, number: i32) {
        self.number = number;
    }

    /// How long a statement may run; `None` without a limit.
    #[must_use]
    pub fn statement_timeout(&self) -> Option<Duration> {
        self.settings.statement_timeout()
    }

    /// What there is to say beside the answers, since it was last asked. What an answer cost is said once its rows have ended.
    pub fn take_notices(&mut self) -> Vec<Notice> {
        if self.owed.as_ref().is_some_and(|(_, ended)| ended.load(Ordering::Acquire)) {
            self.settle();
        }
        std::mem::take(&mut self.notices)
    }

    /// What the last statement's reads cost so far; `None` where it read nothing. Whole once its rows have ended.
    #[must_use]
    pub fn cost(&self) -> Option<Cost> {
        Some(self.last.cost()).filter(|cost| cost.scans > 0)
    }

    /// A statement ended before it was done: its future was dropped, or its answer could not be sent. An open transaction has failed then.
    pub fn cancelled(&mut self) {
        self.copy = None;
        if matches!(self.transaction, Transaction::Open(_)) {
            self.transaction = Transaction::Failed;
        }
    }

    /// Names of tables and views, as far as the session knows.
    #[must_use]
    pub fn relations(&self) -> Vec<String> {
        let catalog = self.shared.get().catalog;
        catalog.tables.keys().chain(catalog.views.keys()).cloned().collect()
    }

    fn cx(&self) -> Cx<'_> {
        self.shared.choose(&self.settings);
        Cx {
            context: &self.context,
            shared: &self.shared,
            sequences: &self.gateway.sequences,
            user: &self.user,
            number: self.number,
            settings: &self.settings,
            casts: Mutex::default(),
        }
    }

    fn notice(&mut self, message: String) {
        self.notices.push(Notice { severity: "NOTICE", message });
    }

    /// Tells what the last statement cost, where that is owed.
    fn settle(&mut self) {
        let Some((work, _)) = self.owed.take() else { return };
        let cost = Some(work.cost()).filter(|cost| cost.scans > 0).map(|cost| cost.line());
        let lines = cost.into_iter().chain(self.shared.proofs.lines());
        self.notices.extend(lines.map(|message| Notice { severity: "INFO", message }));
    }

    /// Has the planner's tables show the catalogue and `work`.
    async fn begin(&mut self, work: &Arc<Work>, anew: bool) -> Result<(), SqlError> {
        let catalog = self.gateway.catalog(anew).await?;
        // What a statement gives follows from what the catalogue said: where another gateway has changed that since, it is a conflict.
        if let Some(version) = catalog.version {
            work.observe(sql::catalog::OBJECTS, version, None)?;
        }
        self.shared.set(Current { catalog, work: Arc::clone(work) });
        Ok(())
    }

    /// Plans a statement: its parameters' types, and its columns.
    ///
    /// # Errors
    /// [`SqlError`].
    pub async fn prepare(&mut self, statement: Statement, hints: Vec<Option<DataType>>) -> Result<Prepared, SqlError> {
        if matches!(self.transaction, Transaction::Failed) && !ends_transaction(&statement.0) {
            return Err(in_failed());
        }
        if matches!(self.transaction, Transaction::Idle) {
            self.begin(&Arc::default(), false).await?;
        }
        let result = self.try_prepare(statement.clone(), &hints).await;
        // What is missing may have been made elsewhere since.
        match result {
            Err(error) if error.state == SqlState::UndefinedTable && matches!(self.transaction, Transaction::Idle) => {
                self.begin(&Arc::default(), true).await?;
                self.try_prepare(statement, &hints).await
            }
            Err(error) => {
                self.fail();
                Err(error)
            }
            ok => ok,
        }
    }

    async fn try_prepare(&self, mut statement: Statement, hints: &[Option<DataType>]) -> Result<Prepared, SqlError> {
        let casts = params::casts(&mut statement.0)?;
        let arrays = params::arrays(&mut statement.0);
        let count = casts.len().max(hints.len());
        let mut known: Vec<Option<DataType>> =
            (0..count).map(|i| hints.get(i).cloned().flatten().or_else(|| casts.get(i).cloned().flatten())).collect();
        // A statement of parameters whose types are known in part tells the rest.
        if known.iter().any(Option::is_none) {
            let (plan, casts) = self.plan_of(&statement.0).await?;
            let found = plan.map(|p| p.get_parameter_types()).transpose()?.unwrap_or_default();
            for (i, ty) in known.iter_mut().enumerate().filter(|(_, t)| t.is_none()) {
                let of_array = arrays.iter().find(|(n, _)| *n == i).and_then(|(_, column)| self.array_of(column));
                let of_plan = of_array.or_else(|| found.get(&format!("${}", i + 1)).cloned().flatten());
                *ty = casts.get(i).cloned().flatten().or(of_plan).or(Some(DataType::Utf8));
            }
        }
        let params: Vec<DataType> = known.into_iter().flatten().collect();
        let mut filled = statement.0.clone();
        if !params.is_empty() {
            let values = params.iter().map(params::stand_in).collect::<Result<Vec<_>, _>>()?;
            params::fill(&mut filled, &values)?;
        }
        let columns = self.columns_of(&filled).await?;
        Ok(Prepared { statement, params, columns })
    }

    /// An array of a column's type, where all columns of that name have one type.
    fn array_of(&self, column: &str) -> Option<DataType> {
        let catalog = self.shared.get().catalog;
        let mut types = catalog.tables.values().filter_map(|t| t.column(column).ok()).map(|c| c.data_type());
        let first = types.next()?;
        types.all(|t| t == first).then(|| DataType::List(Arc::new(Field::new_list_field(first, true))))
    }

    /// The plan of the query in a statement, where there is one; and the types that casts give its parameters, those of columns that
    /// values are for among them.
    async fn plan_of(
        &self,
        statement: &ast::Statement,
    ) -> Result<(Option<LogicalPlan>, Vec<Option<DataType>>), SqlError> {
        let cx = self.cx();
        let plan = match statement {
            ast::Statement::Query(query) => Some(cx.plan_query(query).await?),
            ast::Statement::Insert(insert) => Some(cx.plan_insert(insert).await?.1),
            ast::Statement::Update(update) => Some(cx.plan_update(update).await?.2),
            ast::Statement::Delete(delete) => Some(cx.plan_delete(delete).await?.2),
            _ => None,
        };
        Ok((plan, cx.casts.into_inner().unwrap_or_else(PoisonError::into_inner)))
    }

    /// The columns of a statement's answer.
    async fn columns_of(&self, statement: &ast::Statement) -> Result<Option<SchemaRef>, SqlError> {
        let cx = self.cx();
        let schema = |plan: &LogicalPlan| Some(Arc::new(plan.schema().as_arrow().clone()) as SchemaRef);
        let returning = |def: &TableDef, items: &Option<Vec<ast::SelectItem>>| match items {
            None => Ok(None),
            Some(items) => cx.plan_returning(def, &def.name, None, items).map(|p| schema(&p)),
        };
        let text = |name: &str| Some(Arc::new(Schema::new(vec![Field::new(name, DataType::Utf8, false)])) as SchemaRef);
        Ok(match statement {
            ast::Statement::Query(query) => {
                let plan = cx.plan_query(query).await?;
                schema(&plan).map(|c| origins::marked(&plan, &names::named(query, &c), &self.shared))
            }
            ast::Statement::Explain { .. } => Some(explain::schema()),
            ast::Statement::Insert(insert) => returning(&cx.plan_insert(insert).await?.0, &insert.returning)?,
            ast::Statement::Update(update) => returning(&cx.plan_update(update).await?.0, &update.returning)?,
            ast::Statement::Delete(delete) => returning(&cx.plan_delete(delete).await?.0, &delete.returning)?,
            ast::Statement::Fetch { name, into: None, .. } => Some(self.cursor_columns(name)?),
            ast::Statement::ShowVariable { variable } => text(&self.settings.show(variable)?.0),
            _ => None,
        })
    }

    /// Runs a statement with values for its parameters.
    ///
    /// # Errors
    /// [`SqlError`]; an open transaction has failed then.
    pub async fn execute(&mut self, prepared: &Prepared, values: Vec<ScalarValue>) -> Result<Outcome, SqlError> {
        let result = self.try_execute(prepared, values).await;
        let (wishes, numbers) = (self.shared.take_wishes(), self.shared.take_numbers());
        if result.is_err() {
            self.fail();
            return result;
        }
        for (sequence, next) in numbers {
            if let Err(error) = self.gateway.sequences.set(&*self.gateway.store, &sequence, next).await {
                self.fail();
                return Err(error);
            }
        }
        for (name, value, local) in wishes {
            if !local {
                self.after.put(name.clone(), value.clone())?;
            }
            self.settings.put(name, value)?;
        }
        result
    }

    fn fail(&mut self) {
        if matches!(self.transaction, Transaction::Open(_)) {
            self.transaction = Transaction::Failed;
        }
    }

    async fn try_execute(&mut self, prepared: &Prepared, values: Vec<ScalarValue>) -> Result<Outcome, SqlError> {
        self.settle();
        self.last = Arc::default();
        let mut statement = prepared.statement.0.clone();
        if !values.is_empty() {
            params::fill(&mut statement, &values)?;
        }
        if matches!(self.transaction, Transaction::Failed) && !ends_transaction(&statement) {
            return Err(in_failed());
        }
        self.shared.proofs.begin(self.settings.get(settings::PROOF) == Some("groth16"))?;
        match statement {
            ast::Statement::StartTransaction { modes, .. } => {
                let begun = self.start().await?;
                self.read_only = access(&modes).unwrap_or_else(|| self.settings.is_on(settings::READ_ONLY));
                return Ok(begun);
            }
            ast::Statement::Commit { .. } => return self.commit().await,
            ast::Statement::Rollback { savepoint: None, .. } => return self.rollback().await,
            ast::Statement::Rollback { savepoint: Some(name), .. } => return self.rollback_to(&fold(&name)),
            ast::Statement::Savepoint { name } => {
                let catalog = self.shared.get().catalog;
                self.open()?.savepoint(&fold(&name), catalog, self.cleared.len());
                return Ok(Outcome::Done(Tag::Command("SAVEPOINT")));
            }
            ast::Statement::ReleaseSavepoint { name } => {
                self.open()?.release(&fold(&name))?;
                return Ok(Outcome::Done(Tag::Command("RELEASE")));
            }
            ast::Statement::Set(ast::Set::SetTransaction { modes, session: false, .. }) => {
                self.read_only = access(&modes).unwrap_or(self.read_only);
                return Ok(Outcome::Done(Tag::Command("SET")));
            }
            ast::Statement::Set(set) => {
                let local = matches!(&set, ast::Set::SingleAssignment { scope: Some(ast::ContextModifier::Local), .. });
                if local && matches!(self.transaction, Transaction::Idle) {
                    let message = "SET LOCAL can only be used in transaction blocks".to_owned();
                    self.notices.push(Notice { severity: "WARNING", message });
                    return Ok(Outcome::Done(Tag::Command("SET")));
                }
                let mut chosen = self.settings.clone();
                chosen.set(&set)?;
                self.shared.proofs.begin(chosen.get(settings::PROOF) == Some("groth16"))?;
                self.settings = chosen;
                if !local {
                    self.after.set(&set)?;
                }
                return Ok(Outcome::Done(Tag::Command("SET")));
            }
            ast::Statement::Reset(reset) => {
                self.settings.reset(&reset);
                self.after.reset(&reset);
                return Ok(Outcome::Done(Tag::Command("RESET")));
            }
            ast::Statement::Fetch { name, direction, into, .. } => {
                let moves = into.as_ref().is_some_and(sql::is_move);
                if into.is_some() && !moves {
                    return Err(SqlError::unsupported("FETCH .. INTO"));
                }
                return self.fetch(&name, &direction, moves).await;
            }
            ast::Statement::Close { cursor } => return self.close_cursor(&cursor),
            ast::Statement::ShowVariable { variable } => {
                let (name, value) = self.settings.show(&variable)?;
                return Ok(one_text(&name, &value));
            }
            ast::Statement::Discard { .. } => {
                (self.settings, self.after) = (Settings::default(), Settings::default());
                self.named.clear();
                self.cursors.clear();
                return Ok(Outcome::Done(Tag::Command("DISCARD ALL")));
            }
            ast::Statement::Prepare { name, data_types, statement } => {
                return self.name(name, &data_types, *statement).await;
            }
            ast::Statement::Execute { name: Some(name), parameters, .. } => {
                return self.execute_named(&name, &parameters).await;
            }
            ast::Statement::Deallocate { name, .. } => {
                let name = fold(&name);
                if name == "all" {
                    self.named.clear();
                } else if self.named.remove(&name).is_none() {
                    let why = format!("prepared statement \"{name}\" does not exist");
                    return Err(SqlError::new(SqlState::UndefinedObject, why));
                }
                return Ok(Outcome::Done(Tag::Command("DEALLOCATE")));
            }
            _ => {}
        }
        if let Transaction::Open(work) = &self.transaction {
            let work = Arc::clone(work);
            work.reset_cost();
            self.last = Arc::clone(&work);
            let outcome = self.run(&statement, &work, false).await?;
            return Ok(outcome);
        }
        // Outside a transaction block, a statement is its own transaction, and tried again where somebody else was first.
        for attempt in 1.. {
            let work = Work::new(&self.gateway.committer.pins);
            self.last = Arc::clone(&work);
            self.begin(&work, attempt > 1).await?;
            let notices = self.notices.len();
            match self.alone(&statement, &work).await {
                Err(error) if attempt < self.gateway.options.attempts && self.may_retry(&error, attempt) => {
                    tracing::debug!(attempt, %error, "a statement is tried again");
                    self.notices.truncate(notices);
                    self.cleared.clear();
                    let pause = Duration::from_millis(rand::random::<u64>() % (5 << attempt.min(6)));
                    tokio::time::sleep(pause).await;
                }
                other => {
                    if other.is_err() {
                        self.cleared.clear();
                    }
                    return other;
                }
            }
        }
        unreachable!("the loop returns")
    }

    /// Whether a statement that failed so is tried again: a conflict, or, once, a table that may have been made elsewhere.
    fn may_retry(&self, error: &SqlError, attempt: u32) -> bool {
        match error.state {
            SqlState::SerializationFailure => true,
            SqlState::UndefinedTable | SqlState::UndefinedColumn => attempt == 1,
            _ => false,
        }
    }

    /// A statement as a transaction of its own.
    async fn alone(&mut self, statement: &ast::Statement, work: &Arc<Work>) -> Result<Outcome, SqlError> {
        let outcome = self.run(statement, work, true).await?;
        if matches!(outcome, Outcome::CopyIn { .. }) {
            return Ok(outcome);
        }
        if work.writes() {
            work.commit(&self.gateway.committer, &self.shared.get().catalog).await?;
            self.committed(work).await;
        } else if !self.cleared.is_empty() {
            self.committed(work).await;
        }
        Ok(outcome)
    }

    /// After a commit: what was dropped is cleared, and the catalogue forgotten where it changed.
    async fn committed(&mut self, work: &Work) {
        if !work.delta(sql::catalog::OBJECTS).is_empty() {
            self.gateway.forget_catalog().await;
        }
        for physical in std::mem::take(&mut self.cleared) {
            // Its rows are unreachable already; where this fails they only take room.
            if let Err(error) = self.gateway.store.clear(&physical).await {
                tracing::warn!(%error, "the rows of a dropped table were not cleared");
            }
        }
    }

    async fn name(
        &mut self,
        name: ast::Ident,
        types: &[ast::DataType],
        statement: ast::Statement,
    ) -> Result<Outcome, SqlError> {
        let name = fold(&name);
        if self.named.contains_key(&name) {
            return Err(SqlError::new(
                SqlState::DuplicateTable,
                format!("prepared statement \"{name}\" already exists"),
            ));
        }
        if self.named.len() >= NAMED_MAX {
            let why = format!("a session keeps at most {NAMED_MAX} prepared statements");
            return Err(SqlError::new(SqlState::ProgramLimitExceeded, why));
        }
        let hints = types.iter().map(sql::types::cast_type).collect();
        let prepared = self.prepare(Statement(statement), hints).await?;
        self.named.insert(name, prepared);
        Ok(Outcome::Done(Tag::Command("PREPARE")))
    }

    async fn execute_named(&mut self, name: &ast::ObjectName, values: &[ast::Expr]) -> Result<Outcome, SqlError> {
        let name = relation(name)?;
        let prepared = self.named.get(&name).cloned().ok_or_else(|| {
            SqlError::new(SqlState::UndefinedObject, format!("prepared statement \"{name}\" does not exist"))
        })?;
        if values.len() != prepared.params.len() {
            let (got, want) = (values.len(), prepared.params.len());
            let why =
                format!("wrong number of parameters for prepared statement \"{name}\": expected {want} but got {got}");
            return Err(SqlError::new(SqlState::SyntaxError, why));
        }
        // The expressions take the parameters' places as they stand.
        let mut statement = prepared.statement.0.clone();
        params::fill_exprs(&mut statement, values)?;
        let filled = Prepared { statement: Statement(statement), params: Vec::new(), columns: None };
        Box::pin(self.try_execute(&filled, Vec::new())).await
    }

    /// Runs a statement in a transaction. `alone`: in one of its own, which ends with it.
    async fn run(&mut self, statement: &ast::Statement, work: &Arc<Work>, alone: bool) -> Result<Outcome, SqlError> {
        let reads = if alone { self.settings.is_on(settings::READ_ONLY) } else { self.read_only };
        if let (true, Some(what)) = (reads, writing(statement)) {
            let why = format!("cannot execute {what} in a read-only transaction");
            return Err(SqlError::new(SqlState::ReadOnlyTransaction, why));
        }
        let mut said = Vec::new();
        let outcome = match statement {
            ast::Statement::Query(query) => self.query(query, work, alone).await,
            ast::Statement::Explain { .. } => {
                let batch = explain::explain(&self.cx(), statement).await?;
                Ok(rows(explain::schema(), vec![batch], Tag::Command("EXPLAIN")))
            }
            ast::Statement::Insert(insert) => {
                let written = self.cx().insert(insert).await?;
                Ok(answer(written, Tag::Insert))
            }
            ast::Statement::Update(update) => {
                let written = self.cx().update(update).await?;
                Ok(answer(written, Tag::Update))
            }
            ast::Statement::Delete(delete) => {
                let written = self.cx().delete(delete).await?;
                Ok(answer(written, Tag::Delete))
            }
            ast::Statement::Truncate(truncate) => {
                for table in &truncate.table_names {
                    self.cx().truncate(&relation(&table.name)?).await?;
                }
                Ok(Outcome::Done(Tag::Command("TRUNCATE TABLE")))
            }
            ast::Statement::CreateTable(create) => {
                let filled = self.cx().create_table(create, &mut said).await?;
                Ok(Outcome::Done(if create.query.is_some() {
                    Tag::SelectInto(filled)
                } else {
                    Tag::Command("CREATE TABLE")
                }))
            }
            ast::Statement::CreateIndex(create) => {
                self.cx().create_index(create, &mut said).await?;
                Ok(Outcome::Done(Tag::Command("CREATE INDEX")))
            }
            ast::Statement::CreateView(create) => {
                self.cx().create_view(create).await?;
                Ok(Outcome::Done(Tag::Command("CREATE VIEW")))
            }
            ast::Statement::AlterTable(alter) => {
                let cleared = self.cx().alter_table(alter, &mut said).await?;
                self.cleared.extend(cleared);
                Ok(Outcome::Done(Tag::Command("ALTER TABLE")))
            }
            ast::Statement::Drop { object_type, if_exists, names, .. } => {
                let cleared = self.cx().drop_objects(*object_type, names, *if_exists, &mut said).await?;
                self.cleared.extend(cleared);
                Ok(Outcome::Done(Tag::Command(match object_type {
                    ast::ObjectType::View => "DROP VIEW",
                    ast::ObjectType::Index => "DROP INDEX",
                    _ => "DROP TABLE",
                })))
            }
            ast::Statement::Copy { source, to, target, options, legacy_options, .. } => {
                copy::is_stdio(target)?;
                let options = copy::Options::of(options, legacy_options)?;
                if *to {
                    self.copy_out(source, options, work, alone).await
                } else {
                    self.copy_in(source, options, work, alone).await
                }
            }
            ast::Statement::Declare { stmts } => self.declare(stmts, work).await,
            // Said of what has no meaning here, by tools that dump and restore.
            ast::Statement::Comment { .. } => Ok(Outcome::Done(Tag::Command("COMMENT"))),
            ast::Statement::Analyze { .. } => Ok(Outcome::Done(Tag::Command("ANALYZE"))),
            ast::Statement::Vacuum(_) => Ok(Outcome::Done(Tag::Command("VACUUM"))),
            ast::Statement::LockTables { .. } | ast::Statement::Lock(_) => {
                Ok(Outcome::Done(Tag::Command("LOCK TABLE")))
            }
            other => {
                let first = other.to_string();
                let words: Vec<&str> = first.split_whitespace().take(2).collect();
                Err(SqlError::unsupported(words.join(" ")))
            }
        }?;
        said.into_iter().for_each(|s| self.notice(s));
        if !self.settings.is_on(settings::NOTICES) {
            return Ok(outcome);
        }
        let ended = Arc::new(AtomicBool::new(false));
        let outcome = outcome.marked(Ended(Arc::clone(&ended)));
        self.owed = Some((Arc::clone(work), ended));
        Ok(outcome)
    }

    /// A query's rows. A small answer is gathered first; a large one goes out as it comes.
    async fn query(&mut self, query: &ast::Query, work: &Arc<Work>, alone: bool) -> Result<Outcome, SqlError> {
        let frame = self.cx().frame_of_query(query).await?;
        let plan = frame.logical_plan().clone();
        let stream = apart(frame.execute_stream().await?);
        let schema = origins::marked(&plan, &names::named(query, &stream.schema()), &self.shared);
        let renamed = Arc::clone(&schema);
        let mut stream = stream.map(move |batch| {
            let batch = batch?;
            let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
            Ok::<_, DataFusionError>(RecordBatch::try_new_with_options(
                Arc::clone(&renamed),
                batch.columns().to_vec(),
                &options,
            )?)
        });
        let (mut gathered, mut bytes) = (Vec::new(), 0);
        let ended = loop {
            if bytes > self.gateway.options.answer_bytes {
                break false;
            }
            let Some(batch) = stream.next().await else { break true };
            let batch = batch?;
            bytes += batch.get_array_memory_size();
            gathered.push(batch);
        };
        // Several tables must have been as they were read at one moment.
        let mut shown = Vec::new();
        if alone && work.needs_a_look() {
            shown = work.versions();
            work.commit(&self.gateway.committer, &self.shared.get().catalog).await?;
        }
        if ended {
            return Ok(rows(schema, gathered, Tag::Select));
        }
        // Rows that follow are of the versions that were looked at. Where others were read since, whether all were true together is said at
        // the end, and where not, nothing of it counts.
        let (committer, work) = (Arc::clone(&self.gateway.committer), Arc::clone(work));
        let catalog = self.shared.get().catalog;
        let last = async move {
            if alone && work.needs_a_look() && work.versions() != shown {
                work.commit(&committer, &catalog).await.map_err(DataFusionError::from)?;
            }
            Ok::<_, DataFusionError>(None)
        };
        let last = futures::stream::once(last).filter_map(|r| async move { r.transpose() });
        let all = futures::stream::iter(gathered.into_iter().map(Ok)).chain(stream).chain(last);
        let stream = Box::pin(RecordBatchStreamAdapter::new(Arc::clone(&schema), all));
        Ok(Outcome::Rows { schema, stream, tag: Tag::Select })
    }
}

/// Most statements that PREPARE names in a session.
const NAMED_MAX: usize = 4096;

/// What a transaction may do, where its modes say so: whether it only reads.
fn access(modes: &[ast::TransactionMode]) -> Option<bool> {
    modes.iter().rev().find_map(|mode| match mode {
        ast::TransactionMode::AccessMode(access) => Some(*access == ast::TransactionAccessMode::ReadOnly),
        ast::TransactionMode::IsolationLevel(_) => None,
    })
}

/// The words of a statement that writes.
const fn writing(statement: &ast::Statement) -> Option<&'static str> {
    Some(match statement {
        ast::Statement::Insert(_) => "INSERT",
        ast::Statement::Update(_) => "UPDATE",
        ast::Statement::Delete(_) => "DELETE",
        ast::Statement::Truncate(_) => "TRUNCATE TABLE",
        ast::Statement::CreateTable(_) => "CREATE TABLE",
        ast::Statement::CreateIndex(_) => "CREATE INDEX",
        ast::Statement::CreateView(_) => "CREATE VIEW",
        ast::Statement::AlterTable(_) => "ALTER TABLE",
        ast::Statement::Drop { .. } => "DROP",
        ast::Statement::Copy { to: false, .. } => "COPY FROM",
        _ => return None,
    })
}

/// Whether a statement may run in a failed transaction.
const fn ends_transaction(statement: &ast::Statement) -> bool {
    matches!(statement, ast::Statement::Commit { .. } | ast::Statement::Rollback { .. })
}

fn answer(written: Written, tag: impl FnOnce(u64) -> Tag) -> Outcome {
    let tag = tag(written.rows);
    match written.returning {
        None => Outcome::Done(tag),
        Some((schema, batches)) => rows(schema, batches, tag),
    }
}
