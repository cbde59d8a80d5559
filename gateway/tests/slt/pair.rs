//! One connection of a file: a session that pushes down, and beside it one that does not, over the same database.

use crate::cells;
use crate::planted::Planted;
use async_trait::async_trait;
use fluence_gateway::session::{GatewayOptions, Outcome, Statement, Tag, TransactionStatus};
use fluence_gateway::store::Store;
use fluence_gateway::{Gateway, SqlError, SqlSession};
use futures::StreamExt;
use sqllogictest::{AsyncDB, DBOutput, DefaultColumnType};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// What was seen of the queries of some files.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    /// Queries that were answered twice and compared.
    pub(crate) compared: usize,
    /// Of them, those whose plan reads a table.
    pub(crate) reading: usize,
    /// Of them, those whose plan pushes a range, a limit or an aggregate down.
    pub(crate) pushed: usize,
    /// Queries whose answers differ, and how.
    pub(crate) differences: Vec<String>,
    /// Queries that leave open which rows they give (LIMIT without an order that says all), and gave others.
    pub(crate) open: usize,
}

impl Tally {
    pub(crate) fn add(&mut self, other: Self) {
        self.compared += other.compared;
        self.reading += other.reading;
        self.pushed += other.pushed;
        self.open += other.open;
        self.differences.extend(other.differences);
    }
}

/// A database and how it is asked.
#[derive(Clone)]
pub(crate) struct Place {
    with: Arc<Gateway>,
    without: Arc<Gateway>,
    planted: Option<Arc<Planted>>,
    pub(crate) tally: Arc<Mutex<Tally>>,
}

impl Place {
    /// An empty database; what it pushes down goes through `planted`, where there is one.
    pub(crate) async fn empty(planted: impl FnOnce(Arc<dyn Store>) -> Option<Arc<Planted>>) -> Self {
        let store = crate::real::store().await;
        let planted = planted(Arc::clone(&store));
        let pushing: Arc<dyn Store> = match &planted {
            Some(planted) => Arc::clone(planted) as Arc<dyn Store>,
            None => Arc::clone(&store),
        };
        // The other gateway sees at once what this one made.
        let off = GatewayOptions { pushdown: false, catalog_age_max: Duration::ZERO, ..GatewayOptions::default() };
        let with = Gateway::new(pushing, GatewayOptions::default());
        Self { with, without: Gateway::new(store, off), planted, tally: Arc::default() }
    }

    pub(crate) const fn is_planted(&self) -> bool {
        self.planted.is_some()
    }

    pub(crate) async fn connect(&self) -> Result<Pair, SqlError> {
        let with = self.with.session("ada", "db").await?;
        Ok(Pair { with, without: self.without.session("ada", "db").await?, place: self.clone() })
    }
}

/// See the module.
pub(crate) struct Pair {
    with: SqlSession,
    without: SqlSession,
    place: Place,
}

/// What a statement says.
struct Answer {
    rows: Option<(Vec<DefaultColumnType>, Vec<Vec<String>>)>,
    count: u64,
}

async fn answer(session: &mut SqlSession, statement: Statement) -> Result<Answer, SqlError> {
    let prepared = session.prepare(statement, Vec::new()).await?;
    let tag = match session.execute(&prepared, Vec::new()).await? {
        Outcome::Rows { schema, mut stream, .. } => {
            let letters = schema.fields().iter().map(|f| cells::letter(f.data_type())).collect();
            let mut rows = Vec::new();
            while let Some(batch) = stream.next().await {
                let batch = batch?;
                rows.extend(
                    (0..batch.num_rows())
                        .map(|row| batch.columns().iter().map(|c| cells::cell(c.as_ref(), row)).collect::<Vec<_>>()),
                );
            }
            let count = rows.len() as u64;
            return Ok(Answer { rows: Some((letters, rows)), count });
        }
        Outcome::Done(tag) => tag,
        other => return Err(SqlError::unsupported(format!("{other:?} in a file"))),
    };
    let count = match tag {
        Tag::Move(n) | Tag::Insert(n) | Tag::Update(n) | Tag::Delete(n) | Tag::Copy(n) | Tag::SelectInto(n) => n,
        Tag::Select | Tag::Fetch | Tag::Command(_) => 0,
    };
    Ok(Answer { rows: None, count })
}

/// Whether a statement only reads: it can be asked twice.
fn is_query(text: &str) -> bool {
    let first = text.trim_start_matches(['(', ' ', '\n']).split(|c: char| !c.is_ascii_alphabetic()).next();
    first.is_some_and(|w| ["select", "with", "values", "table"].contains(&w.to_lowercase().as_str()))
}

/// Whether a query may leave open which rows it gives.
fn is_open(text: &str) -> bool {
    let lower = text.to_lowercase();
    ["limit", "offset", "fetch", "distinct on", "row_number", "first_value", "last_value", "nth_value", "ntile"]
        .iter()
        .any(|w| lower.contains(w))
}

impl Pair {
    async fn one(&mut self, statement: Statement) -> Result<Answer, SqlError> {
        let text = statement.to_string();
        // Inside a transaction its own changes are seen by one of the two alone.
        let twice = is_query(&text) && self.with.status() == TransactionStatus::Idle;
        if !twice {
            return answer(&mut self.with, statement).await;
        }
        let got = self.pushing(statement.clone()).await;
        let plain = answer(&mut self.without, statement.clone()).await;
        let difference = match (&got, &plain) {
            (Ok(Answer { rows: Some((_, a)), .. }), Ok(Answer { rows: Some((_, b)), .. })) => {
                let differ = !cells::same_rows(a, b);
                differ.then(|| format!("{a:?}\nwithout pushdown:\n{b:?}"))
            }
            (Ok(_), Err(e)) => Some(format!("an answer, without pushdown {} {e}", e.state.code())),
            (Err(e), Ok(_)) => Some(format!("{} {e}, without pushdown an answer", e.state.code())),
            _ => None,
        };
        let mut explained = String::new();
        if let (true, Ok(mut explain)) = (got.is_ok(), self.with.parse(&format!("EXPLAIN {text}"))) {
            explained = lines(answer(&mut self.with, explain.remove(0)).await.as_ref().ok()).join("\n");
        }
        let volatile = match &difference {
            // One that gives something else each time is not to be compared.
            Some(_) => {
                let again = self.pushing(statement).await;
                got.is_ok() && lines(got.as_ref().ok()) != lines(again.as_ref().ok())
            }
            None => false,
        };
        let mut tally = self.place.tally.lock().unwrap();
        if !volatile {
            tally.compared += 1;
            let reads = explained.contains("VerifiedScan") || explained.contains("ProvenAggregate");
            tally.reading += usize::from(reads);
            let range = explained.contains("range=") && explained.replace("range=all", "").contains("range=");
            let pushed = reads && (explained.contains("ProvenAggregate") || range || explained.contains(", limit="));
            tally.pushed += usize::from(pushed);
            match difference {
                Some(_) if is_open(&text) && self.place.planted.is_none() => tally.open += 1,
                Some(how) => tally.differences.push(format!("{text}\n{how}")),
                None => {}
            }
        }
        got
    }

    /// Asks with pushdown, through the planted fault where there is one.
    async fn pushing(&mut self, statement: Statement) -> Result<Answer, SqlError> {
        let _on = self.place.planted.as_deref().map(Planted::on);
        answer(&mut self.with, statement).await
    }
}

/// The rows of an answer, where there are any, in an order that does not depend on that of their coming.
fn lines(answer: Option<&Answer>) -> Vec<String> {
    let rows = answer.and_then(|a| a.rows.as_ref());
    let mut lines: Vec<String> = rows.iter().flat_map(|(_, rows)| rows.iter().map(|r| r.join("|"))).collect();
    lines.sort();
    lines
}

#[async_trait]
impl AsyncDB for Pair {
    type Error = SqlError;
    type ColumnType = DefaultColumnType;

    async fn run(&mut self, sql: &str) -> Result<DBOutput<DefaultColumnType>, SqlError> {
        let mut last = DBOutput::StatementComplete(0);
        for statement in self.with.parse(sql)? {
            let said = self.one(statement).await?;
            last = match said.rows {
                Some((types, rows)) => DBOutput::Rows { types, rows },
                None => DBOutput::StatementComplete(said.count),
            };
        }
        Ok(last)
    }

    async fn shutdown(&mut self) {}

    fn engine_name(&self) -> &'static str {
        "fluence"
    }

    fn error_sql_state(error: &SqlError) -> Option<String> {
        Some(error.state.code().to_owned())
    }
}
