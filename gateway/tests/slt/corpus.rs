//! Runs a file record by record, and counts.

use crate::pair::{Place, Tally};
use sqllogictest::{
    Condition, DefaultColumnType, ExpectedError, QueryExpect, Record, Runner, StatementExpect, Validator,
};
use std::path::Path;

/// Whose answers a file shows.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Dialect {
    /// PostgreSQL's: values, types and SQLSTATEs.
    Postgres,
    /// DataFusion's: values; that something is an error, not which.
    DataFusion,
}

/// How a file went.
#[derive(Debug, Default)]
pub(crate) struct Ran {
    /// Statements and queries that did what the file says.
    pub(crate) passed: usize,
    /// Errors that were due and came.
    pub(crate) refused: usize,
    /// The others: where, and why.
    pub(crate) failed: Vec<String>,
    /// Records that are known to differ, and do.
    pub(crate) known: usize,
    /// Records that are known to differ, and do not: their `skipif` can go.
    pub(crate) held: usize,
    pub(crate) tally: Tally,
}

/// A condition under which a record is known to differ here.
fn known_to_differ(conditions: &[Condition]) -> bool {
    conditions.contains(&Condition::SkipIf { label: "fluence".to_owned() })
}

/// What is DataFusion's own, and says nothing of SQL: plans, and its settings.
fn is_its_own(sql: &str) -> bool {
    let lower = sql.trim_start().to_lowercase();
    let words: Vec<&str> = lower.split_whitespace().take(2).collect();
    match words.as_slice() {
        ["explain", ..] | ["reset", ..] => true,
        ["set", name] => name.starts_with("datafusion."),
        _ => false,
    }
}

/// Runs the records of a file on an empty database.
pub(crate) async fn run(path: &Path, dialect: Dialect, place: Place) -> Ran {
    let records = sqllogictest::parse_file::<DefaultColumnType>(path).unwrap_or_else(|e| panic!("{e}"));
    let connecting = place.clone();
    let mut runner = Runner::new(move || {
        let place = connecting.clone();
        async move { place.connect().await }
    });
    match dialect {
        Dialect::Postgres => {
            runner.with_column_validator(sqllogictest::strict_column_validator);
            runner.with_validator(crate::cells::postgres_validator as Validator);
        }
        Dialect::DataFusion => runner.with_validator(crate::cells::datafusion_validator as Validator),
    }
    let mut ran = Ran::default();
    for mut record in records {
        // A planted fault that was noticed needs no second notice.
        if place.is_planted() && !place.tally.lock().unwrap().differences.is_empty() && !ran.failed.is_empty() {
            break;
        }
        let known;
        let refusal = match &mut record {
            Record::Statement { sql, expected, conditions, .. } => {
                if dialect == Dialect::DataFusion && is_its_own(sql) {
                    continue;
                }
                known = known_to_differ(conditions);
                match expected {
                    StatementExpect::Error(error) => {
                        if dialect == Dialect::DataFusion {
                            *error = ExpectedError::Empty;
                        }
                        true
                    }
                    _ => false,
                }
            }
            Record::Query { sql, expected, conditions, .. } => {
                if dialect == Dialect::DataFusion && is_its_own(sql) {
                    continue;
                }
                known = known_to_differ(conditions);
                match expected {
                    QueryExpect::Error(error) => {
                        if dialect == Dialect::DataFusion {
                            *error = ExpectedError::Empty;
                        }
                        true
                    }
                    QueryExpect::Results { .. } => false,
                }
            }
            Record::Halt { .. } => break,
            // No file runs commands on this machine or waits.
            Record::System { loc, .. } | Record::Sleep { loc, .. } => {
                ran.failed.push(format!("{loc}: not SQL"));
                continue;
            }
            // The runner is told of the rest: labels, sort modes, variables.
            _ => {
                if let Err(error) = runner.run_async(record).await {
                    ran.failed.push(error.to_string());
                }
                continue;
            }
        };
        if known && let Record::Statement { conditions, .. } | Record::Query { conditions, .. } = &mut record {
            conditions.clear();
        }
        match (runner.run_async(record).await, known) {
            (Ok(_), true) => ran.held += 1,
            (Err(_), true) => ran.known += 1,
            (Ok(_), false) if refusal => ran.refused += 1,
            (Ok(_), false) => ran.passed += 1,
            (Err(error), false) => ran.failed.push(error.to_string()),
        }
    }
    ran.tally = std::mem::take(&mut *place.tally.lock().unwrap());
    ran
}
