//! The extended protocol: statements that are planned once, portals that give their rows in portions.
//!
//! ```text
//! Parse ──> Stored ── Bind ──> Portal { bound } ── Execute ──> { open: rows left } ── Execute ──> { done }
//! ```
//! Rule    a portal sends what its statement was described as, or nothing: where the table changed in between, the statement is prepared
//!         again (0A000), because drivers decode by the description.
//! Rule    names and portals are bounded per connection; an unnamed one is replaced silently, a named one never.
//! Source  PostgreSQL 15, "Extended Query"

use super::connection::Connection;
use super::encode::{Rows, describe, fields};
use super::errors::{Failure, Fault, code};
use super::frontend::{Bind, Target};
use super::params;
use super::simple::command_tag;
use crate::pg_type::pg_type;
use crate::session::{Outcome, Prepared};
use datafusion::scalar::ScalarValue;
use pgwire::api::Type;
use pgwire::api::portal::Format;
use pgwire::messages::PgWireBackendMessage;
use pgwire::messages::data::{NoData, ParameterDescription};
use pgwire::messages::extendedquery::{BindComplete, CloseComplete, ParseComplete, PortalSuspended};
use pgwire::messages::response::EmptyQueryResponse;
use std::collections::HashMap;
use std::sync::Arc;

/// Statements, and portals, of one connection.
const NAMES_MAX: usize = 10_000;

/// A statement that Parse kept.
pub(super) struct Stored {
    /// `None`: the empty query.
    prepared: Option<Prepared>,
    /// Types of the parameters on the wire: what the client declared, else what the planner found.
    types: Vec<Type>,
}

/// A statement with its parameters.
pub(super) struct Portal {
    stored: Arc<Stored>,
    params: Vec<ScalarValue>,
    format: Format,
    state: State,
}

enum State {
    Bound,
    Open(Rows),
    Done,
}

/// A name is free, or it is the unnamed one.
fn free<T>(names: &HashMap<String, T>, name: &str, what: &str, taken: &'static str) -> Result<(), Fault> {
    if !name.is_empty() && names.contains_key(name) {
        return Err(Fault::error(taken, format!("{what} \"{name}\" already exists")));
    }
    if names.len() >= NAMES_MAX {
        return Err(Fault::error(code::PROGRAM_LIMIT, format!("{NAMES_MAX} {what}s are open, no more are kept"))
            .hint("close those that are not used any more"));
    }
    Ok(())
}

/// What Bind says for all `count` columns or parameters.
fn format(codes: Vec<i16>, count: usize, what: &str) -> Result<Format, Fault> {
    match codes.as_slice() {
        [] => Ok(Format::UnifiedText),
        [one] => Ok(Format::from(*one)),
        many if many.len() == count => Ok(Format::Individual(codes)),
        many => Err(Fault::error(
            code::PROTOCOL_VIOLATION,
            format!("bind message has {} {what} formats but there are {count} {what}s", many.len()),
        )),
    }
}

impl Connection {
    /// Parse.
    pub(super) async fn parse(&mut self, name: String, sql: &str, oids: &[u32]) -> Result<(), Failure> {
        if name.is_empty() {
            self.statements.remove("");
        }
        free(&self.statements, &name, "prepared statement", code::DUPLICATE_STATEMENT)?;
        let declared = oids.iter().map(|oid| params::declared(*oid)).collect::<Result<Vec<_>, _>>()?;
        let mut parsed = self.session.parse(sql)?;
        let stored = match parsed.pop() {
            None => Stored { prepared: None, types: Vec::new() },
            Some(_) if !parsed.is_empty() => {
                return Err(Fault::error(
                    code::SYNTAX_ERROR,
                    "cannot insert multiple commands into a prepared statement",
                )
                .into());
            }
            Some(statement) => {
                let hints = declared.iter().map(|declared| declared.as_ref().and_then(params::natural)).collect();
                let guard = self.begin();
                let prepare = async { self.session.prepare(statement, hints).await.map_err(Failure::from) };
                let prepared: Prepared = guard.race(prepare).await?;
                let mut types = Vec::with_capacity(prepared.params.len());
                for (index, param) in prepared.params.iter().enumerate() {
                    types.push(match declared.get(index).cloned().flatten() {
                        Some(declared) => declared,
                        None => pg_type(param)?,
                    });
                }
                Stored { prepared: Some(prepared), types }
            }
        };
        self.statements.insert(name, Arc::new(stored));
        self.wire.feed(PgWireBackendMessage::ParseComplete(ParseComplete::new())).await
    }

    fn statement(&self, name: &str) -> Result<Arc<Stored>, Fault> {
        self.statements.get(name).cloned().ok_or_else(|| {
            Fault::error(code::INVALID_STATEMENT_NAME, format!("prepared statement \"{name}\" does not exist"))
        })
    }

    /// Bind.
    pub(super) async fn bind(&mut self, bind: Bind) -> Result<(), Failure> {
        let stored = self.statement(&bind.statement)?;
        if bind.portal.is_empty() {
            self.portals.remove("");
        }
        free(&self.portals, &bind.portal, "portal", code::DUPLICATE_CURSOR)?;
        let (given, needed) = (bind.values.len(), stored.types.len());
        if given != needed {
            let message = format!(
                "bind message supplies {given} parameters, but prepared statement \"{}\" requires {needed}",
                bind.statement
            );
            return Err(Fault::error(code::PROTOCOL_VIOLATION, message).into());
        }
        let inputs = format(bind.formats, given, "parameter")?;
        let targets = stored.prepared.as_ref().map(|prepared| prepared.params.as_slice()).unwrap_or_default();
        let mut values = Vec::with_capacity(given);
        for (index, ((value, declared), target)) in bind.values.iter().zip(&stored.types).zip(targets).enumerate() {
            let value = params::decode(value.as_deref(), inputs.is_binary(index), declared, target);
            values.push(value.map_err(|mut fault| {
                fault.message = format!("parameter ${}: {}", index + 1, fault.message);
                fault
            })?);
        }
        let columns = stored.prepared.as_ref().and_then(|prepared| prepared.columns.as_ref());
        let format = format(bind.results, columns.map_or(0, |schema| schema.fields().len()), "result column")?;
        self.portals.insert(bind.portal, Portal { stored, params: values, format, state: State::Bound });
        self.wire.feed(PgWireBackendMessage::BindComplete(BindComplete::new())).await
    }

    /// Describe.
    pub(super) async fn describe(&mut self, target: Target, name: &str) -> Result<(), Failure> {
        let (stored, format) = match target {
            Target::Statement => (self.statement(name)?, Format::UnifiedText),
            // A cursor of SQL is a portal too: drivers ask for its columns so.
            Target::Portal => match self.portals.get(name) {
                Some(portal) => (Arc::clone(&portal.stored), portal.format.clone()),
                None => {
                    let columns = self.session.cursor(name).ok_or_else(|| no_portal(name))?;
                    return self.wire.feed(describe(&fields(&columns, &Format::UnifiedText)?)).await;
                }
            },
        };
        if target == Target::Statement {
            let types = stored.types.iter().map(Type::oid).collect();
            let description = ParameterDescription::new(types);
            self.wire.feed(PgWireBackendMessage::ParameterDescription(description)).await?;
        }
        let message = match stored.prepared.as_ref().and_then(|prepared| prepared.columns.as_ref()) {
            Some(schema) => describe(&fields(schema, &format)?),
            None => PgWireBackendMessage::NoData(NoData::new()),
        };
        self.wire.feed(message).await
    }

    /// Execute.
    pub(super) async fn execute(&mut self, name: &str, rows_max: i32) -> Result<(), Failure> {
        let rows_max = u64::try_from(rows_max).ok().filter(|max| *max > 0);
        let portal = self.portals.get_mut(name).ok_or_else(|| no_portal(name))?;
        // A portal that fails, or is cancelled, stays done.
        let state = std::mem::replace(&mut portal.state, State::Done);
        let (stored, format) = (Arc::clone(&portal.stored), portal.format.clone());
        let params = std::mem::take(&mut portal.params);
        let Some(prepared) = &stored.prepared else {
            return self.wire.feed(PgWireBackendMessage::EmptyQueryResponse(EmptyQueryResponse::new())).await;
        };
        // More than one statement before a Sync is one transaction. Where Sync is the next word, this one is alone, and tried again by
        // itself where somebody else commits first.
        if matches!(state, State::Bound) && self.wire.next_tag() != Some(b'S') {
            self.session.begin_pipeline(&prepared.statement).await?;
        }
        let guard = self.begin();
        let rows = match state {
            State::Bound => guard.race(self.start(prepared, params, &format, rows_max)).await?,
            State::Open(rows) => guard.race(self.go_on(rows, rows_max)).await?,
            State::Done if prepared.columns.is_some() => return self.complete("SELECT 0".to_owned()).await,
            State::Done => {
                return Err(Fault::error(code::OBJECT_NOT_IN_STATE, format!("portal \"{name}\" cannot be run")).into());
            }
        };
        if let (Some(rows), Some(portal)) = (rows, self.portals.get_mut(name)) {
            portal.state = State::Open(rows);
        }
        Ok(())
    }

    /// Runs a bound portal. Gives the rows that are left where the limit came first.
    async fn start(
        &mut self,
        prepared: &Prepared,
        params: Vec<ScalarValue>,
        format: &Format,
        rows_max: Option<u64>,
    ) -> Result<Option<Rows>, Failure> {
        let outcome = self.session.execute(prepared, params).await?;
        self.notices().await?;
        match outcome {
            Outcome::Empty => {
                self.wire.feed(PgWireBackendMessage::EmptyQueryResponse(EmptyQueryResponse::new())).await?;
            }
            Outcome::Done(tag) => self.complete(command_tag(&tag, 0)).await?,
            Outcome::Rows { schema, stream, tag } => {
                let described =
                    prepared.columns.as_ref().map(|schema| fields(schema, &Format::UnifiedText)).transpose()?;
                let sent = fields(&schema, &Format::UnifiedText)?;
                let same = described.is_some_and(|described| {
                    described.iter().map(|field| field.datatype()).eq(sent.iter().map(|field| field.datatype()))
                });
                if !same {
                    return Err(
                        Fault::error(code::FEATURE_NOT_SUPPORTED, "cached plan must not change result type").into()
                    );
                }
                return self.go_on(Rows::new(&schema, format, stream, tag)?, rows_max).await;
            }
            Outcome::CopyIn { columns, format, fields } => self.copy_in(columns, format, &fields).await?,
            Outcome::CopyRows { schema, stream } => self.copy_rows(&schema, stream).await?,
            Outcome::CopyOut { columns, format, stream } => self.copy_out(columns, format, stream).await?,
        }
        Ok(None)
    }

    /// Sends the next portion.
    async fn go_on(&mut self, mut rows: Rows, rows_max: Option<u64>) -> Result<Option<Rows>, Failure> {
        let (count, ended) = rows.send(&mut self.wire, rows_max).await?;
        if !ended {
            self.wire.feed(PgWireBackendMessage::PortalSuspended(PortalSuspended::new())).await?;
            return Ok(Some(rows));
        }
        self.complete(command_tag(rows.tag(), count)).await?;
        Ok(None)
    }

    /// Close. What does not exist is closed already.
    pub(super) async fn close(&mut self, target: Target, name: &str) -> Result<(), Failure> {
        match target {
            Target::Statement => drop(self.statements.remove(name)),
            Target::Portal => drop(self.portals.remove(name)),
        }
        self.wire.feed(PgWireBackendMessage::CloseComplete(CloseComplete::new())).await
    }
}

fn no_portal(name: &str) -> Fault {
    Fault::error(code::INVALID_CURSOR_NAME, format!("portal \"{name}\" does not exist"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formats_are_none_one_or_one_each() {
        assert!(!format(vec![], 3, "result column").unwrap().is_binary(2));
        assert!(format(vec![1], 3, "result column").unwrap().is_binary(2));
        assert!(format(vec![0, 1], 2, "parameter").unwrap().is_binary(1));
        assert_eq!(format(vec![0, 1], 3, "parameter").unwrap_err().code, "08P01");
    }

    #[test]
    fn a_name_is_given_once_and_the_unnamed_one_again() {
        let mut names = HashMap::from([("a".to_owned(), ()), (String::new(), ())]);
        assert_eq!(free(&names, "a", "portal", code::DUPLICATE_CURSOR).unwrap_err().code, "42P03");
        assert!(free(&names, "b", "portal", code::DUPLICATE_CURSOR).is_ok());
        assert!(free(&names, "", "portal", code::DUPLICATE_CURSOR).is_ok());
        names.extend((0..NAMES_MAX).map(|index| (index.to_string(), ())));
        assert_eq!(free(&names, "b", "portal", code::DUPLICATE_CURSOR).unwrap_err().code, "54000");
    }
}
