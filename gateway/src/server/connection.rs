//! One connection: its session, its statements and portals, and the loop over its messages.
//!
//! ```text
//! frame ── decode ── simple | parse, bind, describe, execute, close | sync ──> answers, ReadyForQuery
//! ```
//! Rule    an error in an extended message is followed by skipping to the next Sync, in any other by ReadyForQuery at once.
//! Rule    whatever fails here fails an open transaction, also where the session did not see it: a value that cannot be sent, a portal
//!         that does not exist.
//! Source  PostgreSQL 15, "Message Flow"

use super::Server;
use super::cancel::{Running, Ticket};
use super::errors::{Failure, Fault, code, notice};
use super::extended::{Portal, Stored};
use super::frontend::{Message, is_extended};
use super::startup::Client;
use super::wire::{Frame, Wire};
use crate::session::{SqlSession, TransactionStatus};
use pgwire::messages::PgWireBackendMessage;
use pgwire::messages::response::{CommandComplete, ReadyForQuery, TransactionStatus as StatusByte};
use pgwire::messages::startup::{Authentication, BackendKeyData, ParameterStatus};
use std::collections::HashMap;
use std::sync::Arc;
use tokio::sync::watch;

/// The version of PostgreSQL whose behaviour drivers may expect, and ours.
pub(super) const SERVER_VERSION: &str = concat!("15.0 (Fluence ", env!("CARGO_PKG_VERSION"), ")");

/// See the module.
pub(super) struct Connection {
    pub(super) wire: Wire,
    pub(super) session: SqlSession,
    pub(super) statements: HashMap<String, Arc<Stored>>,
    pub(super) portals: HashMap<String, Portal>,
    running: Arc<Running>,
    ended: watch::Receiver<bool>,
}

/// Serves one client to its end.
pub(super) async fn run(server: Arc<Server>, client: Client, ended: watch::Receiver<bool>) {
    let Client { mut wire, user, database, application_name, version } = client;
    let ticket = server.registry.register(version);
    if let Err(failure) = welcome(&mut wire, &ticket, &user, application_name).await {
        return farewell(wire, failure).await;
    }
    let session = match server.gateway.session(&user, &database).await {
        Ok(mut session) => {
            session.identify(ticket.pid);
            session
        }
        Err(error) => {
            return farewell(wire, Failure::Fault(Fault { fatal: true, ..error.into() })).await;
        }
    };
    let mut connection = Connection {
        wire,
        session,
        statements: HashMap::new(),
        portals: HashMap::new(),
        running: Arc::clone(&ticket.running),
        ended,
    };
    if let Err(failure) = connection.serve().await {
        farewell(connection.into_wire(), failure).await;
    }
}

async fn farewell(wire: Wire, failure: Failure) {
    tracing::debug!(?failure, "a session ended");
    if let Some(fault) = failure.into_fault() {
        wire.close_with(Fault { fatal: true, ..fault }).await;
    }
}

/// AuthenticationOk, the parameters that drivers look at, the key for cancel requests.
async fn welcome(wire: &mut Wire, ticket: &Ticket, user: &str, application_name: String) -> Result<(), Failure> {
    wire.feed(PgWireBackendMessage::Authentication(Authentication::Ok)).await?;
    for (name, value) in [
        ("server_version", SERVER_VERSION),
        ("server_encoding", "UTF8"),
        ("client_encoding", "UTF8"),
        ("application_name", application_name.as_str()),
        ("session_authorization", user),
        ("is_superuser", "off"),
        ("default_transaction_read_only", "off"),
        ("in_hot_standby", "off"),
        ("DateStyle", "ISO, MDY"),
        ("IntervalStyle", "postgres"),
        ("TimeZone", "UTC"),
        ("integer_datetimes", "on"),
        ("standard_conforming_strings", "on"),
    ] {
        let status = ParameterStatus::new(name.to_owned(), value.to_owned());
        wire.feed(PgWireBackendMessage::ParameterStatus(status)).await?;
    }
    let key = BackendKeyData::new(ticket.pid, ticket.secret_key());
    wire.feed(PgWireBackendMessage::BackendKeyData(key)).await
}

impl Connection {
    /// Ends the session.
    fn into_wire(self) -> Wire {
        self.wire
    }

    /// Until the client leaves (`Ok`), or something ends the connection.
    async fn serve(&mut self) -> Result<(), Failure> {
        self.ready().await?;
        let mut skips = false;
        loop {
            let frame = tokio::select! {
                biased;
                _ended = self.ended.wait_for(|ended| *ended) => return Err(Failure::Shutdown),
                frame = self.wire.frame() => frame?,
            };
            let Some(frame) = frame else { return Ok(()) };
            if skips && !matches!(frame.tag, b'S' | b'X') {
                continue;
            }
            if frame.tag == b'X' {
                return Ok(());
            }
            match self.message(&frame).await {
                Ok(()) => skips = false,
                Err(failure) => {
                    self.failed(failure).await?;
                    // A Sync that fails is one all the same.
                    skips = is_extended(frame.tag) && frame.tag != b'S';
                    if !skips {
                        self.ready().await?;
                    }
                }
            }
        }
    }

    /// One message; an error is not yet told.
    async fn message(&mut self, frame: &Frame) -> Result<(), Failure> {
        match Message::decode(frame)? {
            Message::Query(sql) => self.simple(&sql).await,
            Message::Parse { name, sql, types } => self.parse(name, &sql, &types).await,
            Message::Bind(bind) => self.bind(bind).await,
            Message::Describe(target, name) => self.describe(target, &name).await,
            Message::Execute { portal, rows_max } => self.execute(&portal, rows_max).await,
            Message::Close(target, name) => self.close(target, &name).await,
            Message::Flush => self.wire.flush().await,
            Message::Sync => {
                self.session.end_pipeline().await?;
                // Portals live as long as their transaction.
                if self.session.status() != TransactionStatus::Open {
                    self.portals.clear();
                }
                self.ready().await
            }
            // What follows a COPY that failed.
            Message::CopyData(_) | Message::CopyDone | Message::CopyFail(_) | Message::Terminate => Ok(()),
            Message::FunctionCall => {
                Err(Fault::error(code::FEATURE_NOT_SUPPORTED, "function calls by OID are not supported").into())
            }
            Message::Authentication => {
                Err(Fault::fatal(code::PROTOCOL_VIOLATION, "unexpected authentication message").into())
            }
        }
    }

    /// Work that a cancel request may stop begins.
    pub(super) fn begin(&self) -> super::cancel::Guard {
        self.running.begin(self.ended.clone(), self.session.statement_timeout())
    }

    /// Tells of an error, or gives it back where the connection ends with it.
    async fn failed(&mut self, failure: Failure) -> Result<(), Failure> {
        self.session.cancelled();
        match failure {
            Failure::Cancelled | Failure::TimedOut | Failure::Fault(Fault { fatal: false, .. }) => {
                self.notices().await?;
                if let Some(fault) = failure.into_fault() {
                    tracing::debug!(code = %fault.code, "a statement failed");
                    self.wire.feed(fault.into_message()).await?;
                }
                // Without a flush the client would wait for it until it sends Sync.
                self.wire.flush().await
            }
            other => Err(other),
        }
    }

    /// Sends what the session has to say besides results.
    pub(super) async fn notices(&mut self) -> Result<(), Failure> {
        for one in self.session.take_notices() {
            self.wire.feed(notice(&one)).await?;
        }
        Ok(())
    }

    /// A command has ended.
    pub(super) async fn complete(&mut self, tag: String) -> Result<(), Failure> {
        self.notices().await?;
        self.wire.feed(PgWireBackendMessage::CommandComplete(CommandComplete::new(tag))).await
    }

    /// The client's turn.
    pub(super) async fn ready(&mut self) -> Result<(), Failure> {
        self.notices().await?;
        for (name, value) in self.session.take_changes() {
            self.wire.feed(PgWireBackendMessage::ParameterStatus(ParameterStatus::new(name, value))).await?;
        }
        let status = match self.session.status() {
            TransactionStatus::Idle => StatusByte::Idle,
            TransactionStatus::Open => StatusByte::Transaction,
            TransactionStatus::Failed => StatusByte::Error,
        };
        self.wire.send(PgWireBackendMessage::ReadyForQuery(ReadyForQuery::new(status))).await
    }
}
