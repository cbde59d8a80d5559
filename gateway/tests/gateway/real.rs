//! A database kept by real engines, sessions on it, and answers as text.

use crate::local::{Net, Node};
use datafusion::arrow::util::display::{ArrayFormatter, FormatOptions};
use fluence_client::{Database, Keyring, Keystore, Session, SessionOptions};
use fluence_gateway::session::{GatewayOptions, Outcome, Tag};
use fluence_gateway::store::Store;
use fluence_gateway::{Gateway, SqlError, SqlSession};
use futures::StreamExt;
use rand::SeedableRng;
use rand::rngs::StdRng;
use std::sync::Arc;

/// One node, and a database that it keeps.
pub(crate) struct Real {
    pub(crate) net: Arc<Net>,
    pub(crate) nodes: Vec<Arc<Node>>,
    pub(crate) database: Database<Arc<Net>>,
}

pub(crate) async fn real() -> Real {
    real_with(SessionOptions::default()).await
}

/// The same, for a session with options of its own.
pub(crate) async fn real_with(options: SessionOptions) -> Real {
    let (net, nodes) = Net::of(&[1]);
    let keystore = Keystore::in_memory(Keyring::generate(&mut StdRng::seed_from_u64(1)));
    let session = Session::with(Arc::clone(&net), keystore, StdRng::seed_from_u64(1001), options);
    let ids = nodes.iter().map(|n| n.id()).collect();
    let database = session.create_database("test", ids, Vec::new()).await.unwrap();
    Real { net, nodes, database }
}

/// The database as the SQL layer sees it.
pub(crate) async fn store() -> Arc<dyn Store> {
    Arc::new(real().await.database)
}

impl Real {
    pub(crate) fn gateway(&self, options: GatewayOptions) -> Arc<Gateway> {
        Gateway::new(Arc::new(self.database.clone()), options)
    }
}

/// Options under which the catalogue is read anew for each statement, as another gateway's DDL asks for.
pub(crate) fn fresh() -> GatewayOptions {
    GatewayOptions { catalog_age_max: std::time::Duration::ZERO, ..GatewayOptions::default() }
}

pub(crate) async fn session() -> SqlSession {
    real().await.gateway(GatewayOptions::default()).session("ada", "db").await.unwrap()
}

/// What a statement says: its rows, each as text joined by `|`, and its tag.
#[derive(Debug)]
pub(crate) struct Said {
    pub(crate) rows: Vec<String>,
    pub(crate) tag: String,
}

/// Runs statements; what the last one says.
pub(crate) async fn run(session: &mut SqlSession, text: &str) -> Result<Said, SqlError> {
    let mut said = Said { rows: Vec::new(), tag: String::new() };
    for statement in session.parse(text)? {
        let prepared = session.prepare(statement, Vec::new()).await?;
        let planned = prepared.columns.clone();
        let outcome = session.execute(&prepared, Vec::new()).await?;
        if let (Some(planned), Outcome::Rows { schema, .. }) = (planned, &outcome) {
            let types = |s: &datafusion::arrow::datatypes::Schema| {
                s.fields().iter().map(|f| (f.name().clone(), f.data_type().clone())).collect::<Vec<_>>()
            };
            assert_eq!(types(&planned), types(schema), "{text}");
        }
        said = say(outcome).await?;
    }
    Ok(said)
}

pub(crate) async fn say(outcome: Outcome) -> Result<Said, SqlError> {
    let mut lines = Vec::new();
    let tag = match outcome {
        Outcome::Rows { mut stream, tag, .. } => {
            while let Some(batch) = stream.next().await {
                let batch = batch?;
                let options = FormatOptions::default().with_null("NULL");
                let columns: Vec<_> =
                    batch.columns().iter().map(|c| ArrayFormatter::try_new(c.as_ref(), &options).unwrap()).collect();
                for row in 0..batch.num_rows() {
                    lines.push(columns.iter().map(|c| c.value(row).to_string()).collect::<Vec<_>>().join("|"));
                }
            }
            tag
        }
        Outcome::Done(tag) => tag,
        Outcome::CopyOut { mut stream, .. } => {
            while let Some(piece) = stream.next().await {
                let (bytes, rows) = piece?;
                assert!(rows <= 1, "a piece is a row");
                lines.extend(std::str::from_utf8(&bytes).unwrap().lines().map(str::to_owned));
            }
            Tag::Copy(lines.len() as u64)
        }
        Outcome::CopyIn { .. } => Tag::Command("COPY IN"),
        Outcome::CopyRows { .. } => Tag::Command("COPY OUT"),
        Outcome::Empty => Tag::Command(""),
    };
    let tag = match tag {
        Tag::Select => format!("SELECT {}", lines.len()),
        Tag::SelectInto(n) => format!("SELECT {n}"),
        Tag::Insert(n) => format!("INSERT 0 {n}"),
        Tag::Update(n) => format!("UPDATE {n}"),
        Tag::Delete(n) => format!("DELETE {n}"),
        Tag::Copy(n) => format!("COPY {n}"),
        Tag::Move(n) => format!("MOVE {n}"),
        Tag::Fetch => format!("FETCH {}", lines.len()),
        Tag::Command(text) => text.to_owned(),
    };
    Ok(Said { rows: lines, tag })
}

/// The rows of a query.
pub(crate) async fn rows(session: &mut SqlSession, text: &str) -> Vec<String> {
    run(session, text).await.unwrap_or_else(|e| panic!("{text}: {} {e:?}", e.state.code())).rows
}

/// The tag of a statement.
pub(crate) async fn tag(session: &mut SqlSession, text: &str) -> String {
    run(session, text).await.unwrap_or_else(|e| panic!("{text}: {} {e:?}", e.state.code())).tag
}

/// The SQLSTATE that a statement ends with.
pub(crate) async fn state(session: &mut SqlSession, text: &str) -> &'static str {
    match run(session, text).await {
        Ok(said) => panic!("{text}: {said:?}"),
        Err(error) => error.state.code(),
    }
}
