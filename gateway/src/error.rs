//! Why a statement failed, with the SQLSTATE that drivers look at.
//!
//! Rule    a message names tables, columns and limits, never values of the owner's rows unless the statement itself said them.
//! Source  PostgreSQL 15, appendix A, "PostgreSQL Error Codes"

use datafusion::arrow::error::ArrowError;
use datafusion::common::DataFusionError;
use fluence_client::ClientError;

/// SQLSTATEs that the gateway gives.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
#[non_exhaustive]
#[allow(missing_docs)]
pub enum SqlState {
    ConnectionFailure,
    FeatureNotSupported,
    CardinalityViolation,
    GroupingError,
    DataException,
    NumericValueOutOfRange,
    DivisionByZero,
    InvalidText,
    BadCopyFormat,
    StringTruncation,
    NotNullViolation,
    UniqueViolation,
    CheckViolation,
    ActiveTransaction,
    NoActiveTransaction,
    InFailedTransaction,
    ReadOnlyTransaction,
    InvalidSavepoint,
    UndefinedCursor,
    DuplicateCursor,
    ObjectNotInState,
    SerializationFailure,
    SyntaxError,
    UndefinedDatabase,
    UndefinedColumn,
    UndefinedTable,
    UndefinedFunction,
    UndefinedObject,
    DuplicateColumn,
    DuplicateTable,
    AmbiguousColumn,
    InsufficientPrivilege,
    DatatypeMismatch,
    InvalidName,
    InvalidParameter,
    InvalidTableDefinition,
    ProgramLimitExceeded,
    OutOfResources,
    QueryCanceled,
    CannotConnectNow,
    DataCorrupted,
    InternalError,
}

impl SqlState {
    /// The five characters on the wire.
    #[must_use]
    pub const fn code(self) -> &'static str {
        match self {
            Self::ConnectionFailure => "08006",
            Self::FeatureNotSupported => "0A000",
            Self::CardinalityViolation => "21000",
            Self::GroupingError => "42803",
            Self::DataException => "22000",
            Self::NumericValueOutOfRange => "22003",
            Self::DivisionByZero => "22012",
            Self::InvalidText => "22P02",
            Self::BadCopyFormat => "22P04",
            Self::StringTruncation => "22001",
            Self::NotNullViolation => "23502",
            Self::UniqueViolation => "23505",
            Self::CheckViolation => "23514",
            Self::ActiveTransaction => "25001",
            Self::NoActiveTransaction => "25P01",
            Self::InFailedTransaction => "25P02",
            Self::ReadOnlyTransaction => "25006",
            Self::InvalidSavepoint => "3B001",
            Self::UndefinedCursor => "34000",
            Self::DuplicateCursor => "42P03",
            Self::ObjectNotInState => "55000",
            Self::SerializationFailure => "40001",
            Self::SyntaxError => "42601",
            Self::UndefinedDatabase => "3D000",
            Self::UndefinedColumn => "42703",
            Self::UndefinedTable => "42P01",
            Self::UndefinedFunction => "42883",
            Self::UndefinedObject => "42704",
            Self::DuplicateColumn => "42701",
            Self::DuplicateTable => "42P07",
            Self::AmbiguousColumn => "42702",
            Self::InsufficientPrivilege => "42501",
            Self::DatatypeMismatch => "42804",
            Self::InvalidName => "42602",
            Self::InvalidParameter => "22023",
            Self::InvalidTableDefinition => "42P16",
            Self::ProgramLimitExceeded => "54000",
            Self::OutOfResources => "53000",
            Self::QueryCanceled => "57014",
            Self::CannotConnectNow => "57P03",
            Self::DataCorrupted => "XX001",
            Self::InternalError => "XX000",
        }
    }
}

/// A statement's failure.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{message}")]
pub struct SqlError {
    /// What kind, for programs.
    pub state: SqlState,
    /// What happened, for people: lower case, without a final point.
    pub message: String,
    /// More of it, where there is more.
    pub detail: Option<String>,
    /// What to do about it.
    pub hint: Option<String>,
    /// What it is about, by name.
    pub about: Option<Box<About>>,
}

/// What an error is about: as far as it is about one table, column, constraint.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct About {
    /// A table.
    pub table: Option<String>,
    /// A column of it.
    pub column: Option<String>,
    /// A constraint of it.
    pub constraint: Option<String>,
}

impl SqlError {
    /// An error of a kind.
    #[must_use]
    pub fn new(state: SqlState, message: impl Into<String>) -> Self {
        Self { state, message: message.into(), detail: None, hint: None, about: None }
    }
    /// With what to do about it.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
    /// With the table that it is about.
    #[must_use]
    pub fn table(mut self, name: &str) -> Self {
        self.about.get_or_insert_default().table = Some(name.to_owned());
        self
    }
    /// With the column that it is about.
    #[must_use]
    pub fn column(mut self, name: &str) -> Self {
        self.about.get_or_insert_default().column = Some(name.to_owned());
        self
    }
    /// With the constraint that it is about.
    #[must_use]
    pub fn constraint(mut self, name: &str) -> Self {
        self.about.get_or_insert_default().constraint = Some(name.to_owned());
        self
    }
    /// With more of it.
    #[must_use]
    pub fn detail(mut self, detail: impl Into<String>) -> Self {
        self.detail = Some(detail.into());
        self
    }
    /// Something that SQL has and the gateway has not.
    #[must_use]
    pub fn unsupported(what: impl std::fmt::Display) -> Self {
        Self::new(SqlState::FeatureNotSupported, format!("{what} is not supported"))
    }
}

/// How a node's refusal ends where the signer is not one who may write ([`fluence_types::op::OpRefusal::NotAllowed`]).
const NOT_ALLOWED: &str = "may not do this";

impl From<ClientError> for SqlError {
    fn from(error: ClientError) -> Self {
        let message = error.to_string();
        match &error {
            ClientError::UnknownTable(_) => Self::new(SqlState::UndefinedTable, message),
            ClientError::TableExists(_) => Self::new(SqlState::DuplicateTable, message),
            ClientError::Overflow(_) => Self::new(SqlState::NumericValueOutOfRange, message),
            ClientError::Transport(_) => Self::new(SqlState::ConnectionFailure, message),
            ClientError::Answer { .. }
            | ClientError::Page { .. }
            | ClientError::Proof { .. }
            | ClientError::Protocol { .. }
            | ClientError::Unmatched => Self::new(SqlState::DataCorrupted, message)
                .hint("a node's answer did not verify; the evidence is kept, ask another member"),
            ClientError::Refused { .. } if message.contains("waits with number") => Self::new(
                SqlState::CannotConnectNow,
                "an earlier write of this owner waits for a quorum of the cluster",
            )
            .detail(message)
            .hint("`fluence cluster status` shows which members are missing"),
            _ if message.ends_with(NOT_ALLOWED) => Self::new(
                SqlState::InsufficientPrivilege,
                "permission denied: the keys of this gateway are not those of the database's owner",
            )
            .detail(message)
            .hint("other keys read what is PUBLIC, and write nothing"),
            e if e.is_retryable() => Self::new(SqlState::SerializationFailure, message)
                .hint("somebody else committed first; run the transaction again"),
            ClientError::Schema(fluence_client::schema::SchemaError::Null(_)) => {
                Self::new(SqlState::NotNullViolation, message)
            }
            ClientError::Schema(_) => Self::new(SqlState::InvalidTableDefinition, message),
            ClientError::Seal(_) => Self::new(SqlState::ProgramLimitExceeded, message),
            _ => Self::new(SqlState::InternalError, message),
        }
    }
}

impl From<DataFusionError> for SqlError {
    fn from(error: DataFusionError) -> Self {
        // An error of ours that travelled through the executor comes out as it went in.
        let error = match error.find_root() {
            DataFusionError::External(inner) => match inner.downcast_ref::<Self>() {
                Some(ours) => return ours.clone(),
                None => error,
            },
            _ => error,
        };
        let text = error.find_root().strip_backtrace();
        let message = text.lines().next().unwrap_or_default().to_owned();
        let lower = message.to_lowercase();
        // `table 'db.public.name' not found`, in PostgreSQL's words.
        let quoted = |m: &str| m.split('\'').nth(1).and_then(|n| n.rsplit('.').next()).map(str::to_owned);
        let message = match quoted(&message) {
            Some(name) if lower.contains("table") && lower.contains("not found") => {
                format!("relation \"{name}\" does not exist")
            }
            _ => message.trim_start_matches("Error during planning: ").trim_start_matches("Schema error: ").to_owned(),
        };
        // The planner tells some things by its words alone.
        let told = [
            ("must appear in the group by clause", SqlState::GroupingError),
            ("more than one row", SqlState::CardinalityViolation),
            ("too large to store in a decimal", SqlState::NumericValueOutOfRange),
            ("can't cast value", SqlState::NumericValueOutOfRange),
            ("unsupported sql type", SqlState::UndefinedObject),
        ];
        let told = told.into_iter().find(|(words, _)| lower.contains(words)).map(|(_, state)| state);
        let state = match error.find_root() {
            _ if told.is_some() => told.unwrap_or(SqlState::InternalError),
            DataFusionError::SQL(..) => SqlState::SyntaxError,
            DataFusionError::NotImplemented(_) => SqlState::FeatureNotSupported,
            DataFusionError::ResourcesExhausted(_) => SqlState::OutOfResources,
            DataFusionError::SchemaError(inner, _) => match **inner {
                datafusion::common::SchemaError::FieldNotFound { .. } => SqlState::UndefinedColumn,
                datafusion::common::SchemaError::AmbiguousReference { .. } => SqlState::AmbiguousColumn,
                _ => SqlState::DuplicateColumn,
            },
            DataFusionError::ArrowError(inner, _) => match **inner {
                ArrowError::DivideByZero => SqlState::DivisionByZero,
                ArrowError::ArithmeticOverflow(_) => SqlState::NumericValueOutOfRange,
                ArrowError::CastError(_) | ArrowError::ParseError(_) => SqlState::InvalidText,
                _ => SqlState::DataException,
            },
            DataFusionError::Plan(_) if lower.contains("table") && lower.contains("not found") => {
                SqlState::UndefinedTable
            }
            DataFusionError::Plan(_) if lower.contains("invalid function") => SqlState::UndefinedFunction,
            DataFusionError::Plan(_) => SqlState::SyntaxError,
            DataFusionError::Execution(_) => SqlState::DataException,
            _ => SqlState::InternalError,
        };
        Self::new(state, message)
    }
}

impl From<SqlError> for DataFusionError {
    fn from(error: SqlError) -> Self {
        Self::External(Box::new(error))
    }
}
