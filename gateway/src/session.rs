//! One connection's session: what drivers and the shell talk to.
//!
//! ```text
//! parse ── prepare ── execute ──> rows, a command tag, or a COPY that goes on
//! ```
//! Contract  one statement at a time; a future that is dropped cancels the statement, and an open transaction has failed then.

use crate::error::{SqlError, SqlState};
use crate::sql::catalog::{Catalog, TableDef};
use crate::sql::context::{self, Current, Shared};
use crate::sql::sequence::Sequences;
use crate::sql::settings::{self, Settings};
use crate::sql::work::Work;
use crate::sql::write::{Cx, Written};
use crate::sql::{self, copy, explain, fold, names, params, relation};
use crate::store::Store;
use datafusion::arrow::array::{Array, ArrayRef, RecordBatch, RecordBatchOptions, StringArray};
use datafusion::arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use datafusion::common::DataFusionError;
use datafusion::logical_expr::LogicalPlan;
use datafusion::physical_plan::SendableRecordBatchStream;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::prelude::SessionContext;
use datafusion::scalar::ScalarValue;
use datafusion::sql::sqlparser::ast;
use futures::{StreamExt, TryStreamExt};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Where a connection stands with its transaction: the byte of ReadyForQuery.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum TransactionStatus {
    /// None is open.
    Idle,
    /// One is open.
    Open,
    /// One is open and has failed: all but ROLLBACK is refused.
    Failed,
}

/// What a statement did, as its command tag says.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Tag {
    /// `SELECT n`: the server counts the rows that it sends.
    Select,
    /// `INSERT 0 n`.
    Insert(u64),
    /// `UPDATE n`.
    Update(u64),
    /// `DELETE n`.
    Delete(u64),
    /// `COPY n`.
    Copy(u64),
    /// `SELECT n` of a CREATE TABLE AS.
    SelectInto(u64),
    /// A command without a count: `CREATE TABLE`, `BEGIN`, `SET`.
    Command(&'static str),
}

/// Text, CSV or binary COPY.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum CopyFormat {
    /// Tab-separated, backslash escapes, `\N`.
    Text,
    /// RFC 4180 as PostgreSQL writes it.
    Csv,
    /// PGCOPY.
    Binary,
}

/// What comes of a statement.
pub enum Outcome {
    /// An empty query string.
    Empty,
    /// Rows; `tag` counts what was written where it is not a SELECT (RETURNING).
    Rows {
        /// Their columns.
        schema: SchemaRef,
        /// The rows.
        stream: SendableRecordBatchStream,
        /// The command's tag.
        tag: Tag,
    },
    /// No rows.
    Done(Tag),
    /// COPY .. FROM STDIN: the session takes [`SqlSession::copy_data`] until [`SqlSession::copy_done`] or [`SqlSession::copy_fail`].
    CopyIn {
        /// Columns of a row.
        columns: usize,
        /// How they are written.
        format: CopyFormat,
    },
    /// COPY .. TO STDOUT: the encoded chunks, whole rows each.
    CopyOut {
        /// Columns of a row.
        columns: usize,
        /// How they are written.
        format: CopyFormat,
        /// The bytes, and how many rows they hold.
        stream: futures::stream::BoxStream<'static, Result<(bytes::Bytes, u64), SqlError>>,
    },
}

impl std::fmt::Debug for Outcome {
    /// What kind it is; rows are the owner's data.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Empty => f.write_str("Empty"),
            Self::Rows { tag, .. } => write!(f, "Rows({tag:?})"),
            Self::Done(tag) => write!(f, "Done({tag:?})"),
            Self::CopyIn { format, .. } => write!(f, "CopyIn({format:?})"),
            Self::CopyOut { format, .. } => write!(f, "CopyOut({format:?})"),
        }
    }
}

/// A notice to the client, not an error.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Notice {
    /// `NOTICE`, `WARNING` or `INFO`.
    pub severity: &'static str,
    /// The text.
    pub message: String,
}

/// A statement that was parsed, with the text it came from.
pub use crate::sql::Statement;

/// A statement that was planned: its parameters and columns are known.
#[derive(Clone, Debug)]
pub struct Prepared {
    /// The statement.
    pub statement: Statement,
    /// Types of `$1`, `$2`, ...
    pub params: Vec<DataType>,
    /// Columns of the answer; `None` where there are none.
    pub columns: Option<SchemaRef>,
}

/// How a gateway behaves.
#[derive(Clone, Debug)]
pub struct GatewayOptions {
    /// What clients must call the database; `None` takes any name.
    pub database: Option<String>,
    /// Whether filters, limits and aggregates are pushed down. Off, every query runs on all verified rows: for comparison.
    pub pushdown: bool,
    /// Bytes that the planner of one session may hold for sorts, joins and groups.
    pub memory_bytes_max: usize,
    /// Bytes of an answer that are gathered before the first of it goes out: so far, a conflict is tried again unseen.
    pub answer_bytes: usize,
    /// How often a statement outside a transaction block is tried where somebody else commits first.
    pub attempts: u32,
    /// How long what was read of the catalogue is taken without asking whether it has changed. A statement's answer never rests on an old
    /// one: what changed meanwhile is a conflict.
    pub catalog_age_max: Duration,
}

impl Default for GatewayOptions {
    fn default() -> Self {
        Self {
            database: None,
            pushdown: true,
            memory_bytes_max: 512 << 20,
            answer_bytes: 16 << 20,
            attempts: 16,
            catalog_age_max: Duration::from_millis(100),
        }
    }
}

/// A database opened for SQL.
pub struct Gateway {
    store: Arc<dyn Store>,
    options: GatewayOptions,
    sequences: Sequences,
    catalog: tokio::sync::Mutex<Option<(Instant, Arc<Catalog>)>>,
}

impl std::fmt::Debug for Gateway {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Gateway")
    }
}

impl Gateway {
    /// A gateway to a database.
    #[must_use]
    pub fn new(store: Arc<dyn Store>, options: GatewayOptions) -> Arc<Self> {
        Arc::new(Self { store, options, sequences: Sequences::default(), catalog: tokio::sync::Mutex::new(None) })
    }

    /// A session of a user who has shown that he may. `database` is what the client calls it: there is one.
    ///
    /// # Errors
    /// [`SqlError`] where the database cannot be read, or the name is none.
    pub async fn session(self: &Arc<Self>, user: &str, database: &str) -> Result<SqlSession, SqlError> {
        if let Some(served) = &self.options.database
            && served != database
        {
            let shown: String = database.chars().take(128).collect();
            let why = format!("database \"{shown}\" does not exist");
            return Err(SqlError::new(SqlState::UndefinedDatabase, why).hint(format!("this server has \"{served}\"")));
        }
        let named = !database.is_empty() && database.len() <= 128 && database != "information_schema";
        if !named {
            return Err(SqlError::new(SqlState::InvalidName, "a database's name has 1 to 128 bytes"));
        }
        let current = Current { catalog: self.catalog(false).await?, work: Arc::default() };
        let (context, shared) = context::planner(
            database,
            Arc::clone(&self.store),
            current,
            self.options.pushdown,
            self.options.memory_bytes_max,
        )?;
        Ok(SqlSession {
            gateway: Arc::clone(self),
            context,
            shared,
            user: user.to_owned(),
            settings: Settings::default(),
            transaction: Transaction::Idle,
            cleared: Vec::new(),
            notices: Vec::new(),
            copy: None,
            named: HashMap::new(),
        })
    }

    /// The catalogue: as it was read, where it has not changed since, or read anew.
    async fn catalog(&self, anew: bool) -> Result<Arc<Catalog>, SqlError> {
        let mut cached = self.catalog.lock().await;
        // Without a table of objects there is no version by which a change would be seen.
        if let Some((at, catalog)) = &mut *cached
            && let (false, Some(version)) = (anew, catalog.version)
        {
            let still = at.elapsed() <= self.options.catalog_age_max || {
                let reads = [(sql::catalog::OBJECTS.to_owned(), version)];
                self.store.commit(&reads, Vec::new()).await.is_ok()
            };
            if still {
                *at = Instant::now();
                return Ok(Arc::clone(catalog));
            }
        }
        let catalog = Arc::new(Catalog::load(&*self.store).await?);
        *cached = Some((Instant::now(), Arc::clone(&catalog)));
        Ok(catalog)
    }

    async fn forget_catalog(&self) {
        *self.catalog.lock().await = None;
    }
}

/// Where a session's transaction stands.
enum Transaction {
    Idle,
    Open(Arc<Work>),
    Failed,
}

/// A COPY that takes rows.
struct CopyingIn {
    def: Arc<TableDef>,
    /// Places among the columns that are shown.
    columns: Vec<usize>,
    rows: copy::Rows,
    count: u64,
    /// The transaction, where the COPY began its own.
    own: Option<Arc<Work>>,
}

/// One connection's session.
pub struct SqlSession {
    gateway: Arc<Gateway>,
    context: SessionContext,
    shared: Arc<Shared>,
    user: String,
    settings: Settings,
    transaction: Transaction,
    /// Physical tables that hold nothing that is named any more, once the transaction is committed.
    cleared: Vec<String>,
    notices: Vec<Notice>,
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

impl SqlSession {
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

    /// What there is to say beside the answers, since it was last asked.
    pub fn take_notices(&mut self) -> Vec<Notice> {
        std::mem::take(&mut self.notices)
    }

    /// A setting that SET changed, or that SHOW would show.
    #[must_use]
    pub fn setting(&self, name: &str) -> Option<&str> {
        self.settings.get(name)
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
        Cx {
            context: &self.context,
            shared: &self.shared,
            sequences: &self.gateway.sequences,
            user: &self.user,
            casts: Mutex::default(),
        }
    }

    fn notice(&mut self, message: String) {
        self.notices.push(Notice { severity: "NOTICE", message });
    }

    /// Has the planner's tables show the catalogue and `work`.
    async fn begin(&mut self, work: &Arc<Work>, anew: bool) -> Result<(), SqlError> {
        let catalog = self.gateway.catalog(anew).await?;
        // What a statement gives follows from what the catalogue said: where another gateway has changed that since, it is a conflict.
        if let Some(version) = catalog.version {
            work.observe(sql::catalog::OBJECTS, version)?;
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
        let count = casts.len().max(hints.len());
        let mut known: Vec<Option<DataType>> =
            (0..count).map(|i| hints.get(i).cloned().flatten().or_else(|| casts.get(i).cloned().flatten())).collect();
        // A statement of parameters whose types are known in part tells the rest.
        if known.iter().any(Option::is_none) {
            let (plan, casts) = self.plan_of(&statement.0).await?;
            let found = plan.map(|p| p.get_parameter_types()).transpose()?.unwrap_or_default();
            for (i, ty) in known.iter_mut().enumerate().filter(|(_, t)| t.is_none()) {
                let of_plan = found.get(&format!("${}", i + 1)).cloned().flatten();
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
                let columns = schema(&cx.plan_query(query).await?);
                columns.map(|c| names::named(query, &c))
            }
            ast::Statement::Explain { .. } => Some(explain::schema()),
            ast::Statement::Insert(insert) => returning(&cx.plan_insert(insert).await?.0, &insert.returning)?,
            ast::Statement::Update(update) => returning(&cx.plan_update(update).await?.0, &update.returning)?,
            ast::Statement::Delete(delete) => returning(&cx.plan_delete(delete).await?.0, &delete.returning)?,
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
        if result.is_err() {
            self.fail();
        }
        result
    }

    fn fail(&mut self) {
        if matches!(self.transaction, Transaction::Open(_)) {
            self.transaction = Transaction::Failed;
        }
    }

    async fn try_execute(&mut self, prepared: &Prepared, values: Vec<ScalarValue>) -> Result<Outcome, SqlError> {
        let mut statement = prepared.statement.0.clone();
        if !values.is_empty() {
            params::fill(&mut statement, &values)?;
        }
        if matches!(self.transaction, Transaction::Failed) && !ends_transaction(&statement) {
            return Err(in_failed());
        }
        match statement {
            ast::Statement::StartTransaction { .. } => return self.start().await,
            ast::Statement::Commit { .. } => return self.commit().await,
            ast::Statement::Rollback { savepoint: None, .. } => return self.rollback().await,
            ast::Statement::Rollback { savepoint: Some(name), .. } => return self.rollback_to(&fold(&name)),
            ast::Statement::Savepoint { name } => {
                self.open()?.savepoint(&fold(&name));
                return Ok(Outcome::Done(Tag::Command("SAVEPOINT")));
            }
            ast::Statement::ReleaseSavepoint { name } => {
                self.open()?.release(&fold(&name))?;
                return Ok(Outcome::Done(Tag::Command("RELEASE")));
            }
            ast::Statement::Set(set) => {
                self.settings.set(&set)?;
                return Ok(Outcome::Done(Tag::Command("SET")));
            }
            ast::Statement::Reset(reset) => {
                self.settings.reset(&reset);
                return Ok(Outcome::Done(Tag::Command("RESET")));
            }
            ast::Statement::ShowVariable { variable } => {
                let (name, value) = self.settings.show(&variable)?;
                return Ok(one_text(&name, &value));
            }
            ast::Statement::Discard { .. } => {
                self.settings = Settings::default();
                self.named.clear();
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
            let outcome = self.run(&statement, &work, false).await?;
            return Ok(outcome);
        }
        // Outside a transaction block, a statement is its own transaction, and tried again where somebody else was first.
        for attempt in 1.. {
            let work = Arc::new(Work::default());
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
            work.commit(&*self.gateway.store).await?;
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
        Ok(true)
    }

    /// Ends it: all of it happens, or nothing.
    ///
    /// # Errors
    /// [`SqlError`] where it cannot be committed.
    pub async fn end_block(&mut self, done: bool) -> Result<(), SqlError> {
        if done {
            self.commit().await?
        } else {
            self.rollback().await?
        };
        Ok(())
    }

    fn open(&self) -> Result<&Arc<Work>, SqlError> {
        match &self.transaction {
            Transaction::Open(work) => Ok(work),
            _ => Err(SqlError::new(SqlState::NoActiveTransaction, "there is no transaction in progress")),
        }
    }

    async fn start(&mut self) -> Result<Outcome, SqlError> {
        if matches!(self.transaction, Transaction::Idle) {
            let work = Arc::new(Work::default());
            self.begin(&work, false).await?;
            self.transaction = Transaction::Open(work);
        } else {
            let message = "there is already a transaction in progress".to_owned();
            self.notices.push(Notice { severity: "WARNING", message });
        }
        Ok(Outcome::Done(Tag::Command("BEGIN")))
    }

    async fn commit(&mut self) -> Result<Outcome, SqlError> {
        match std::mem::replace(&mut self.transaction, Transaction::Idle) {
            Transaction::Open(work) => {
                let done = work.commit(&*self.gateway.store).await;
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
                Ok(Outcome::Done(Tag::Command("ROLLBACK")))
            }
            Transaction::Idle => {
                self.notices
                    .push(Notice { severity: "WARNING", message: "there is no transaction in progress".to_owned() });
                Ok(Outcome::Done(Tag::Command("COMMIT")))
            }
        }
    }

    async fn rollback(&mut self) -> Result<Outcome, SqlError> {
        if matches!(self.transaction, Transaction::Idle) {
            self.notices
                .push(Notice { severity: "WARNING", message: "there is no transaction in progress".to_owned() });
        }
        self.transaction = Transaction::Idle;
        self.cleared.clear();
        Ok(Outcome::Done(Tag::Command("ROLLBACK")))
    }

    fn rollback_to(&mut self, name: &str) -> Result<Outcome, SqlError> {
        // A failed transaction is alive again from the savepoint on: its work is what the planner's tables still show.
        let work = self.shared.get().work;
        if matches!(self.transaction, Transaction::Idle) {
            return Err(SqlError::new(
                SqlState::NoActiveTransaction,
                "ROLLBACK TO SAVEPOINT can only be used in transaction blocks",
            ));
        }
        work.rollback_to(name)?;
        self.transaction = Transaction::Open(work);
        Ok(Outcome::Done(Tag::Command("ROLLBACK")))
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
                if *to { self.copy_out(source, options).await } else { self.copy_in(source, options, work, alone) }
            }
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
        if self.settings.is_on(settings::NOTICES) {
            let cost = work.cost();
            if cost.scans > 0 {
                self.notices.push(Notice { severity: "INFO", message: cost.line() });
            }
        }
        Ok(outcome)
    }

    /// A query's rows. A small answer is gathered first; a large one goes out as it comes.
    async fn query(&mut self, query: &ast::Query, work: &Arc<Work>, alone: bool) -> Result<Outcome, SqlError> {
        let plan = self.cx().plan_query(query).await?;
        let frame = self.context.execute_logical_plan(plan).await?;
        let stream = frame.execute_stream().await?;
        let schema = names::named(query, &stream.schema());
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
        while bytes <= self.gateway.options.answer_bytes {
            match stream.next().await {
                Some(batch) => {
                    let batch = batch?;
                    bytes += batch.get_array_memory_size();
                    gathered.push(batch);
                }
                None => {
                    if alone && work.needs_a_look() {
                        work.commit(&*self.gateway.store).await?;
                    }
                    return Ok(rows(schema, gathered, Tag::Select));
                }
            }
        }
        // Several tables must have been as they were read at one moment: where not, that is said at the end, and nothing of it counts.
        let (store, work) = (Arc::clone(&self.gateway.store), Arc::clone(work));
        let last = async move {
            if alone && work.needs_a_look() {
                work.commit(&*store).await.map_err(DataFusionError::from)?;
            }
            Ok::<_, DataFusionError>(None)
        };
        let last = futures::stream::once(last).filter_map(|r| async move { r.transpose() });
        let all = futures::stream::iter(gathered.into_iter().map(Ok)).chain(stream).chain(last);
        let stream = Box::pin(RecordBatchStreamAdapter::new(Arc::clone(&schema), all));
        Ok(Outcome::Rows { schema, stream, tag: Tag::Select })
    }

    async fn copy_out(&self, source: &ast::CopySource, options: copy::Options) -> Result<Outcome, SqlError> {
        let statement = sql::parse(&copy::query_of(source)?)?.pop();
        let Some(Statement(ast::Statement::Query(query))) = statement else {
            return Err(SqlError::new(SqlState::SyntaxError, "COPY sends the rows of a table or a query"));
        };
        let plan = self.cx().plan_query(&query).await?;
        let frame = self.context.execute_logical_plan(plan).await?;
        let names: Vec<String> = frame.schema().fields().iter().map(|f| f.name().clone()).collect();
        let columns = names.len();
        let format = options.format;
        let head = options.header.then(|| {
            let mut out = Vec::new();
            copy::write_header(&options, &names.iter().map(String::as_str).collect::<Vec<_>>(), &mut out);
            Ok((bytes::Bytes::from(out), 0))
        });
        let rows = frame.execute_stream().await?.map(move |batch| {
            let mut out = Vec::new();
            let ends = copy::write(&options, &batch?, &mut out)?;
            let (mut all, mut start) = (bytes::Bytes::from(out), 0);
            let rows = ends.into_iter().map(move |end| {
                let row = all.split_to(end - start);
                start = end;
                Ok((row, 1))
            });
            Ok::<_, SqlError>(futures::stream::iter(rows.collect::<Vec<_>>()))
        });
        let stream = futures::stream::iter(head).chain(rows.try_flatten()).boxed();
        Ok(Outcome::CopyOut { columns, format, stream })
    }

    fn copy_in(
        &mut self,
        source: &ast::CopySource,
        options: copy::Options,
        work: &Arc<Work>,
        alone: bool,
    ) -> Result<Outcome, SqlError> {
        let (table, names) = copy::table_of(source)?;
        let def = Arc::clone(self.shared.get().catalog.table(&table)?);
        let shown: Vec<String> = def.visible().map(|c| c.name.clone()).collect();
        let columns: Vec<usize> = if names.is_empty() {
            (0..shown.len()).collect()
        } else {
            let place = |n: &String| def.column(n).map(|c| shown.iter().position(|s| *s == c.name).unwrap_or_default());
            names.iter().map(place).collect::<Result<_, _>>()?
        };
        let (width, format) = (columns.len(), options.format);
        let own = alone.then(|| Arc::clone(work));
        self.copy = Some(CopyingIn { def, columns, rows: copy::Rows::new(options, width), count: 0, own });
        Ok(Outcome::CopyIn { columns: width, format })
    }

    /// Takes bytes of a COPY.
    ///
    /// # Errors
    /// [`SqlError`]; the COPY has ended then.
    pub async fn copy_data(&mut self, bytes: &[u8]) -> Result<(), SqlError> {
        let Some(mut copying) = self.copy.take() else {
            return Err(SqlError::new(SqlState::BadCopyFormat, "there is no COPY in progress"));
        };
        let done = match copying.rows.push(bytes) {
            Ok(Some(columns)) => self.copy_rows(&mut copying, columns).await,
            Ok(None) => Ok(()),
            Err(error) => Err(error),
        };
        match done {
            Ok(()) => self.copy = Some(copying),
            Err(error) => {
                self.fail();
                return Err(error);
            }
        }
        Ok(())
    }

    async fn copy_rows(&self, copying: &mut CopyingIn, columns: Vec<ArrayRef>) -> Result<(), SqlError> {
        let count = columns.first().map_or(0, |c| c.len());
        if count == 0 {
            return Ok(());
        }
        let cx = self.cx();
        let shown = cx.typed_rows(&copying.def, &copying.columns, columns).await?;
        let rows = cx.whole_rows(&copying.def, &shown).await?;
        cx.apply(&copying.def, Some(&rows), None).await?;
        copying.count += count as u64;
        Ok(())
    }

    /// Ends a COPY.
    ///
    /// # Errors
    /// [`SqlError`]: nothing of it is there then.
    pub async fn copy_done(&mut self) -> Result<Outcome, SqlError> {
        let Some(mut copying) = self.copy.take() else {
            return Err(SqlError::new(SqlState::BadCopyFormat, "there is no COPY in progress"));
        };
        let result = self.finish_copy(&mut copying).await;
        if result.is_err() {
            self.fail();
        }
        result.map(|()| Outcome::Done(Tag::Copy(copying.count)))
    }

    async fn finish_copy(&mut self, copying: &mut CopyingIn) -> Result<(), SqlError> {
        let columns = copying.rows.finish()?;
        self.copy_rows(copying, columns).await?;
        if let Some(work) = &copying.own {
            work.commit(&*self.gateway.store).await?;
        }
        Ok(())
    }

    /// Ends a COPY that the client gave up.
    pub async fn copy_fail(&mut self, why: &str) -> SqlError {
        self.copy = None;
        self.fail();
        SqlError::new(
            SqlState::QueryCanceled,
            format!("COPY from stdin failed: {}", why.chars().take(200).collect::<String>()),
        )
    }
}

/// Most statements that PREPARE names in a session.
const NAMED_MAX: usize = 4096;

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
