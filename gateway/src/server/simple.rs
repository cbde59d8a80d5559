//! The simple protocol: a query string, its statements in order, one ReadyForQuery.
//!
//! Rule    a statement's rows are sent before the next statement starts; the first error ends the string.
//! Source  PostgreSQL 15, "Simple Query"

use super::connection::Connection;
use super::encode::{Rows, describe};
use super::errors::{Failure, Fault, code};
use crate::session::{Outcome, Statement, Tag};
use pgwire::api::portal::Format;
use pgwire::messages::PgWireBackendMessage;
use pgwire::messages::response::EmptyQueryResponse;

/// A command's tag, with the rows sent where it counts those.
pub(crate) fn command_tag(tag: &Tag, rows: u64) -> String {
    match tag {
        Tag::Select => format!("SELECT {rows}"),
        Tag::Fetch => format!("FETCH {rows}"),
        Tag::Move(count) => format!("MOVE {count}"),
        Tag::SelectInto(count) => format!("SELECT {count}"),
        Tag::Insert(count) => format!("INSERT 0 {count}"),
        Tag::Update(count) => format!("UPDATE {count}"),
        Tag::Delete(count) => format!("DELETE {count}"),
        Tag::Copy(count) => format!("COPY {count}"),
        Tag::Command(name) => (*name).to_owned(),
    }
}

impl Connection {
    /// Query.
    pub(super) async fn simple(&mut self, sql: &str) -> Result<(), Failure> {
        // The unnamed statement and portal end here, as in PostgreSQL.
        self.statements.remove("");
        self.portals.remove("");
        let statements = self.session.parse(sql)?;
        if statements.is_empty() {
            self.wire.feed(PgWireBackendMessage::EmptyQueryResponse(EmptyQueryResponse::new())).await?;
        }
        // Several statements are one transaction, unless they say otherwise.
        let block = statements.len() > 1 && self.session.begin_block(&statements).await?;
        for statement in statements {
            if let Err(failure) = self.begin().race(self.simple_statement(statement)).await {
                if block {
                    self.session.end_block(false).await?;
                }
                return Err(failure);
            }
        }
        if block {
            self.session.end_block(true).await?;
        }
        self.ready().await
    }

    async fn simple_statement(&mut self, statement: Statement) -> Result<(), Failure> {
        let prepared = self.session.prepare(statement, Vec::new()).await?;
        if !prepared.params.is_empty() {
            return Err(Fault::error(code::UNDEFINED_PARAMETER, "there is no parameter $1")
                .hint("parameters come with the extended protocol")
                .into());
        }
        let outcome = self.session.execute(&prepared, Vec::new()).await?;
        self.notices().await?;
        match outcome {
            Outcome::Empty => self.wire.feed(PgWireBackendMessage::EmptyQueryResponse(EmptyQueryResponse::new())).await,
            Outcome::Done(tag) => self.complete(command_tag(&tag, 0)).await,
            Outcome::Rows { schema, stream, tag } => {
                let mut rows = Rows::new(&schema, &Format::UnifiedText, stream, tag)?;
                self.wire.feed(describe(rows.fields())).await?;
                let (count, _ended) = rows.send(&mut self.wire, None).await?;
                self.complete(command_tag(rows.tag(), count)).await
            }
            Outcome::CopyIn { columns, format, fields } => self.copy_in(columns, format, &fields).await,
            Outcome::CopyRows { schema, stream } => self.copy_rows(&schema, stream).await,
            Outcome::CopyOut { columns, format, stream } => self.copy_out(columns, format, stream).await,
        }
    }
}
