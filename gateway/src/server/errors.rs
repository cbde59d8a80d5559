//! What ends a message, a statement or a connection, and how the client hears of it.
//!
//! Rule    an error with severity ERROR leaves the connection usable; FATAL closes it. Both carry an SQLSTATE.
//! Source  PostgreSQL 15, "Error and Notice Message Fields" and appendix A

use crate::error::{About, SqlError};
use crate::session::Notice;
use pgwire::error::{ErrorInfo, PgWireError};
use pgwire::messages::PgWireBackendMessage;
use pgwire::messages::response::{ErrorResponse, NoticeResponse};
use std::borrow::Cow;
use std::io;

/// SQLSTATEs of the protocol itself; those of statements are in [`crate::SqlState`].
pub(crate) mod code {
    pub(crate) const PROTOCOL_VIOLATION: &str = "08P01";
    pub(crate) const FEATURE_NOT_SUPPORTED: &str = "0A000";
    pub(crate) const INVALID_PARAMETER_VALUE: &str = "22023";
    pub(crate) const NUMERIC_OUT_OF_RANGE: &str = "22003";
    pub(crate) const INVALID_TEXT: &str = "22P02";
    pub(crate) const INVALID_BINARY: &str = "22P03";
    pub(crate) const BAD_COPY_FORMAT: &str = "22P04";
    pub(crate) const CHARACTER_NOT_IN_REPERTOIRE: &str = "22021";
    pub(crate) const INVALID_STATEMENT_NAME: &str = "26000";
    pub(crate) const INVALID_AUTHORIZATION: &str = "28000";
    pub(crate) const INVALID_PASSWORD: &str = "28P01";
    pub(crate) const INVALID_CURSOR_NAME: &str = "34000";
    pub(crate) const SYNTAX_ERROR: &str = "42601";
    pub(crate) const UNDEFINED_PARAMETER: &str = "42P02";
    pub(crate) const DUPLICATE_CURSOR: &str = "42P03";
    pub(crate) const DUPLICATE_STATEMENT: &str = "42P05";
    pub(crate) const UNDEFINED_OBJECT: &str = "42704";
    pub(crate) const TOO_MANY_CONNECTIONS: &str = "53300";
    pub(crate) const PROGRAM_LIMIT: &str = "54000";
    pub(crate) const OBJECT_NOT_IN_STATE: &str = "55000";
    pub(crate) const OBJECT_IN_USE: &str = "55006";
    pub(crate) const QUERY_CANCELED: &str = "57014";
    pub(crate) const ADMIN_SHUTDOWN: &str = "57P01";
    pub(crate) const INTERNAL: &str = "XX000";
}

/// An error as the client sees it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Fault {
    /// Whether the connection ends with it.
    pub(crate) fatal: bool,
    /// The SQLSTATE.
    pub(crate) code: Cow<'static, str>,
    /// For people.
    pub(crate) message: String,
    /// More of it.
    pub(crate) detail: Option<String>,
    /// What to do about it.
    pub(crate) hint: Option<String>,
    /// What it is about.
    pub(crate) about: Option<Box<About>>,
}

impl Fault {
    /// The connection goes on.
    pub(crate) fn error(code: &'static str, message: impl Into<String>) -> Self {
        Self { fatal: false, code: Cow::Borrowed(code), message: message.into(), detail: None, hint: None, about: None }
    }
    /// The connection ends.
    pub(super) fn fatal(code: &'static str, message: impl Into<String>) -> Self {
        Self { fatal: true, ..Self::error(code, message) }
    }
    /// With what to do about it.
    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
    /// The ErrorResponse.
    pub(super) fn into_message(self) -> PgWireBackendMessage {
        let severity = if self.fatal { "FATAL" } else { "ERROR" };
        let mut info = ErrorInfo::new(severity.to_owned(), self.code.into_owned(), one_line(&self.message));
        info.severity_nonlocalized = Some(severity.to_owned());
        info.detail = self.detail.as_deref().map(one_line);
        info.hint = self.hint.as_deref().map(one_line);
        if let Some(about) = self.about {
            info.schema = Some("public".to_owned());
            info.table = about.table.as_deref().map(one_line);
            info.column = about.column.as_deref().map(one_line);
            info.constraint = about.constraint.as_deref().map(one_line);
        }
        PgWireBackendMessage::ErrorResponse(ErrorResponse::from(info))
    }
}

/// Fields of these messages end at a zero byte, so none may be inside.
fn one_line(text: &str) -> String {
    text.replace('\0', "\u{fffd}")
}

impl From<SqlError> for Fault {
    fn from(error: SqlError) -> Self {
        Self {
            fatal: false,
            code: Cow::Borrowed(error.state.code()),
            message: error.message,
            detail: error.detail,
            hint: error.hint,
            about: error.about,
        }
    }
}

impl From<PgWireError> for Fault {
    /// Errors of the encoders: a value that has no form in the protocol.
    fn from(error: PgWireError) -> Self {
        let info = ErrorInfo::from(error);
        Self {
            fatal: info.is_fatal(),
            code: Cow::Owned(info.code),
            message: info.message,
            detail: info.detail,
            hint: info.hint,
            about: None,
        }
    }
}

/// A NoticeResponse. Warnings have class 01, the rest is "successful completion".
pub(super) fn notice(notice: &Notice) -> PgWireBackendMessage {
    let code = if notice.severity == "WARNING" { "01000" } else { "00000" };
    let mut info = ErrorInfo::new(notice.severity.to_owned(), code.to_owned(), one_line(&notice.message));
    info.severity_nonlocalized = Some(notice.severity.to_owned());
    PgWireBackendMessage::NoticeResponse(NoticeResponse::from(info))
}

/// Why work on a connection stopped.
#[derive(Debug)]
pub(super) enum Failure {
    /// The client is told, and goes on unless it is fatal.
    Fault(Fault),
    /// A cancel request came.
    Cancelled,
    /// The statement took longer than `statement_timeout`.
    TimedOut,
    /// The server ends.
    Shutdown,
    /// The client is gone, or what it sends cannot be read any more: nobody to tell.
    Gone(io::Error),
}

impl Failure {
    /// What the client hears, if it is there to hear it.
    pub(super) fn into_fault(self) -> Option<Fault> {
        match self {
            Self::Fault(fault) => Some(fault),
            Self::Cancelled => Some(Fault::error(code::QUERY_CANCELED, "canceling statement due to user request")),
            Self::TimedOut => Some(Fault::error(code::QUERY_CANCELED, "canceling statement due to statement timeout")),
            Self::Shutdown => {
                Some(Fault::fatal(code::ADMIN_SHUTDOWN, "terminating connection due to administrator command"))
            }
            Self::Gone(why) => {
                tracing::debug!(%why, "a client is gone");
                None
            }
        }
    }
}

impl From<Fault> for Failure {
    fn from(fault: Fault) -> Self {
        Self::Fault(fault)
    }
}
impl From<SqlError> for Failure {
    fn from(error: SqlError) -> Self {
        Self::Fault(error.into())
    }
}
impl From<PgWireError> for Failure {
    fn from(error: PgWireError) -> Self {
        Self::Fault(error.into())
    }
}
impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::Gone(error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::SqlState;

    #[test]
    fn keeps_state_detail_and_hint_of_a_statement_error() {
        let error = SqlError::new(SqlState::UniqueViolation, "duplicate\0key").detail("d").hint("h");
        let PgWireBackendMessage::ErrorResponse(response) = Fault::from(error).into_message() else {
            panic!("an ErrorResponse");
        };
        let field = |key: u8| response.fields.iter().find(|(k, _)| *k == key).map(|(_, v)| v.as_str());
        assert_eq!(field(b'S'), Some("ERROR"));
        assert_eq!(field(b'V'), Some("ERROR"));
        assert_eq!(field(b'C'), Some("23505"));
        assert_eq!(field(b'M'), Some("duplicate\u{fffd}key"));
        assert_eq!(field(b'D'), Some("d"));
        assert_eq!(field(b'H'), Some("h"));
    }

    #[test]
    fn a_cancelled_statement_leaves_the_connection_and_a_shutdown_does_not() {
        assert_eq!(Failure::Cancelled.into_fault().map(|f| (f.fatal, f.code)), Some((false, "57014".into())));
        assert_eq!(Failure::Shutdown.into_fault().map(|f| (f.fatal, f.code)), Some((true, "57P01".into())));
    }
}
