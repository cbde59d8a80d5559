//! SET and SHOW: what a session may choose, and what drivers ask.
//!
//! Rule    a SET belongs to its transaction: rolled back with it, and, said LOCAL, gone with it.

use super::fold;
use crate::error::{SqlError, SqlState};
use datafusion::sql::sqlparser::ast::{self, Set};
use std::collections::BTreeMap;
use std::time::Duration;

/// Most settings that a session keeps which nothing here reads.
const OTHERS_MAX: usize = 256;

/// A session's settings.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Settings(BTreeMap<String, String>);

/// Settings whose changes the client is told of, as the protocol spells them.
const REPORTED: [&str; 8] = [
    "application_name",
    "client_encoding",
    "DateStyle",
    "default_transaction_read_only",
    "IntervalStyle",
    "is_superuser",
    "standard_conforming_strings",
    "TimeZone",
];

/// Settings that tell what the server is.
const FIXED: [&str; 9] = [
    "block_size",
    "integer_datetimes",
    "is_superuser",
    "max_function_args",
    "max_identifier_length",
    "max_index_keys",
    "server_encoding",
    "server_version",
    "server_version_num",
];

/// Whether a line about the proof follows every answer.
pub(crate) const NOTICES: &str = "fluence.notices";

/// Whether transactions only read, where they do not say.
pub(crate) const READ_ONLY: &str = "default_transaction_read_only";
/// Whether proven sums come with succinct proofs: `native` or `groth16`.
pub(crate) const PROOF: &str = "fluence.proof";

impl Default for Settings {
    fn default() -> Self {
        let known = [
            ("application_name", ""),
            ("block_size", "8192"),
            ("bytea_output", "hex"),
            ("client_encoding", "UTF8"),
            ("client_min_messages", "notice"),
            ("datestyle", "ISO, MDY"),
            ("default_table_access_method", "heap"),
            ("default_tablespace", ""),
            ("default_transaction_isolation", "serializable"),
            (READ_ONLY, "off"),
            ("extra_float_digits", "1"),
            ("integer_datetimes", "on"),
            ("intervalstyle", "postgres"),
            ("is_superuser", "on"),
            ("jit", "off"),
            ("max_function_args", "100"),
            ("max_identifier_length", "128"),
            ("max_index_keys", "32"),
            ("search_path", "\"$user\", public"),
            ("server_encoding", "UTF8"),
            ("server_version", "15.0"),
            ("server_version_num", "150000"),
            ("standard_conforming_strings", "on"),
            ("statement_timeout", "0"),
            ("timezone", "UTC"),
            ("transaction_isolation", "serializable"),
            ("transaction_read_only", "off"),
            (NOTICES, "off"),
            (PROOF, "native"),
        ];
        Self(known.into_iter().map(|(k, v)| (k.to_owned(), v.to_owned())).collect())
    }
}

impl Settings {
    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    /// Each with its name, its value, the one that it begins with, and whether it can be chosen.
    pub(crate) fn all(&self) -> Vec<(String, String, String, bool)> {
        let first = Self::default();
        let one = |(name, value): (&String, &String)| {
            let begins = first.get(name).unwrap_or_default().to_owned();
            (name.clone(), value.clone(), begins, !FIXED.contains(&name.as_str()))
        };
        self.0.iter().map(one).collect()
    }

    /// What the client is to be told of, that was otherwise before.
    pub(crate) fn changes(&self, before: &Self) -> Vec<(String, String)> {
        let changed = |name: &&&str| self.get(&name.to_lowercase()) != before.get(&name.to_lowercase());
        let told = |name: &str| (name.to_owned(), self.get(&name.to_lowercase()).unwrap_or_default().to_owned());
        REPORTED.iter().filter(changed).map(|name| told(name)).collect()
    }

    /// How long a statement may run; `None` without a limit.
    pub(crate) fn statement_timeout(&self) -> Option<Duration> {
        self.get("statement_timeout").and_then(duration).filter(|d| !d.is_zero())
    }

    pub(crate) fn is_on(&self, name: &str) -> bool {
        self.get(name).is_some_and(|v| matches!(v, "on" | "true" | "1" | "yes"))
    }

    /// The setting that SHOW asks for, with its name.
    ///
    /// # Errors
    /// [`SqlState::UndefinedObject`].
    pub(crate) fn show(&self, variable: &[ast::Ident]) -> Result<(String, String), SqlError> {
        let words: Vec<String> = variable.iter().map(fold).collect();
        let name = match words.join(" ").as_str() {
            "transaction isolation level" => "transaction_isolation".to_owned(),
            "time zone" => "timezone".to_owned(),
            _ => words.join("."),
        };
        let value = self.get(&name).map(str::to_owned);
        let value = value.ok_or_else(|| {
            SqlError::new(SqlState::UndefinedObject, format!("unrecognized configuration parameter \"{name}\""))
        })?;
        Ok((name, value))
    }

    /// Does a SET.
    ///
    /// # Errors
    /// [`SqlError`] for what cannot be had: another encoding, another time zone, more settings than are kept.
    pub(crate) fn set(&mut self, set: &Set) -> Result<(), SqlError> {
        match set {
            Set::SingleAssignment { variable, values, .. } => {
                let name = variable.to_string().to_lowercase().replace('"', "");
                let value: Vec<String> = values.iter().map(text_of).collect();
                self.put(name, value.join(", "))
            }
            Set::SetTimeZone { value, .. } => self.put("timezone".to_owned(), text_of(value)),
            Set::SetNames { charset_name, .. } => self.put("client_encoding".to_owned(), charset_name.value.clone()),
            // Every transaction is serializable, which is what any level asks at most.
            Set::SetTransaction { .. } | Set::SetNamesDefault {} | Set::SetRole { role_name: None, .. } => Ok(()),
            Set::SetSessionParam(_) => Ok(()),
            other => Err(SqlError::unsupported(format!("SET {other}"))),
        }
    }

    /// Does a RESET: a setting, or all, as it was at the start.
    pub(crate) fn reset(&mut self, reset: &ast::ResetStatement) {
        let Self(first) = Self::default();
        match &reset.reset {
            ast::Reset::ALL => self.0 = first,
            ast::Reset::ConfigurationParameter(name) => {
                let name = name.to_string().to_lowercase();
                match first.get(&name) {
                    Some(value) => drop(self.0.insert(name, value.clone())),
                    None => drop(self.0.remove(&name)),
                }
            }
        }
    }

    /// Sets one by its name, as `set_config` does.
    ///
    /// # Errors
    /// [`SqlError`] for what cannot be had.
    pub(crate) fn put(&mut self, name: String, value: String) -> Result<(), SqlError> {
        let name = name.to_lowercase();
        // SET x TO DEFAULT is RESET x.
        if value.eq_ignore_ascii_case("default") {
            let Self(mut first) = Self::default();
            match first.remove(&name) {
                Some(value) => drop(self.0.insert(name, value)),
                None => drop(self.0.remove(&name)),
            }
            return Ok(());
        }
        let refuse = |why: &str| Err(SqlError::new(SqlState::FeatureNotSupported, why.to_owned()));
        match name.as_str() {
            "client_encoding" if !matches!(value.to_lowercase().as_str(), "utf8" | "utf-8" | "unicode" | "default") => {
                refuse("only the encoding UTF8 is supported")
            }
            "timezone"
                if !matches!(value.to_lowercase().as_str(), "utc" | "etc/utc" | "gmt" | "default" | "local" | "0") =>
            {
                refuse("only the time zone UTC is supported")
            }
            "statement_timeout" if duration(&value).is_none() => {
                let shown: String = value.chars().take(40).collect();
                Err(SqlError::new(
                    SqlState::InvalidParameter,
                    format!("invalid value for parameter \"statement_timeout\": \"{shown}\""),
                )
                .hint("Valid units for this parameter are \"us\", \"ms\", \"s\", \"min\", \"h\", and \"d\"."))
            }
            "standard_conforming_strings" if matches!(value.as_str(), "off" | "false" | "0") => {
                refuse("strings are always standard conforming")
            }
            _ if FIXED.contains(&name.as_str()) => {
                Err(SqlError::new(SqlState::InvalidParameter, format!("parameter \"{name}\" cannot be changed")))
            }
            PROOF if !matches!(value.as_str(), "native" | "groth16") => {
                let shown: String = value.chars().take(40).collect();
                let why = format!("invalid value for parameter \"{PROOF}\": \"{shown}\"");
                Err(SqlError::new(SqlState::InvalidParameter, why).hint("Available values: native, groth16."))
            }
            _ if name.starts_with("fluence.") && !self.0.contains_key(&name) => {
                let why = format!("unrecognized configuration parameter \"{name}\"");
                Err(SqlError::new(SqlState::UndefinedObject, why))
            }
            _ if !self.0.contains_key(&name)
                && (self.0.len() >= OTHERS_MAX || name.len() > 128 || value.len() > 4096) =>
            {
                Err(SqlError::new(
                    SqlState::ProgramLimitExceeded,
                    format!("a session keeps at most {OTHERS_MAX} settings"),
                ))
            }
            _ => {
                self.0.insert(name, value);
                Ok(())
            }
        }
    }
}

/// A time with its unit; milliseconds without.
fn duration(text: &str) -> Option<Duration> {
    let text = text.trim();
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let number: u64 = text[..digits].parse().ok()?;
    let micros = match text[digits..].trim() {
        "us" => 1,
        "" | "ms" => 1_000,
        "s" => 1_000_000,
        "min" => 60_000_000,
        "h" => 3_600_000_000,
        "d" => 86_400_000_000,
        _ => return None,
    };
    // As long as PostgreSQL takes at most: 2^31 milliseconds.
    number.checked_mul(micros).filter(|m| *m <= 2_147_483_647_000).map(Duration::from_micros)
}

fn text_of(expr: &ast::Expr) -> String {
    match expr {
        ast::Expr::Value(v) => match &v.value {
            ast::Value::SingleQuotedString(t) | ast::Value::DoubleQuotedString(t) => t.clone(),
            other => other.to_string(),
        },
        ast::Expr::Identifier(i) => i.value.clone(),
        other => other.to_string(),
    }
}
