//! `report.json`: what happened, so that others can check it without reading the story.

use serde::Serialize;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

/// The report; field for field what the demo promises.
#[derive(Serialize, Default, Debug)]
pub(crate) struct Report {
    /// Every step held.
    pub(crate) ok: bool,
    /// The acts, in order.
    pub(crate) steps: Vec<Step>,
    /// Proofs made; each file lies beside the report.
    pub(crate) proofs: Vec<Proof>,
    /// Queries with the plain computation's answer.
    pub(crate) queries: Vec<Query>,
    /// The node whose disk was damaged.
    pub(crate) damaged: Option<String>,
    /// Answers of the lying node that the client refused.
    pub(crate) refused_answers: u64,
    /// Nodes slashed, from the chain's events.
    pub(crate) slashed: Vec<String>,
    /// Collateral by node, in base units of FLU as decimal text, from the chain's events.
    pub(crate) balances: BTreeMap<String, Balance>,
    /// The largest sum of resident memory over all processes.
    pub(crate) peak_memory_mib: u64,
    /// Where it ran.
    pub(crate) machine: Value,
}

/// One step.
#[derive(Serialize, Debug)]
pub(crate) struct Step {
    pub(crate) name: String,
    pub(crate) ok: bool,
    pub(crate) seconds: f64,
    #[serde(flatten)]
    pub(crate) more: Map<String, Value>,
}

/// One proof.
#[derive(Serialize, Debug, Clone)]
pub(crate) struct Proof {
    /// Its file, beside the report.
    pub(crate) file: String,
    /// `storage` or `range_sum`.
    pub(crate) statement: String,
    /// The circuit with its shape.
    pub(crate) shape: String,
    pub(crate) constraints: u64,
    pub(crate) prove_seconds: f64,
    pub(crate) verify_ms: f64,
    /// Bytes of the proof itself.
    pub(crate) bytes: u64,
    /// Gas of the on-chain check, where there was one.
    pub(crate) gas: Option<u64>,
    /// The transaction, where there was one.
    pub(crate) tx: Option<String>,
}

/// One query.
#[derive(Serialize, Debug)]
pub(crate) struct Query {
    pub(crate) sql_like: String,
    pub(crate) answer: Value,
    pub(crate) expected: Value,
    /// Rows the query is about.
    pub(crate) rows: u64,
    /// Bytes of the nodes' answers.
    pub(crate) native_bytes: u64,
    /// Milliseconds to ask, verify and decrypt.
    pub(crate) native_ms: f64,
}

/// Collateral of a node.
#[derive(Serialize, Debug, Clone, PartialEq, Eq)]
pub(crate) struct Balance {
    pub(crate) before: String,
    pub(crate) after: String,
}

/// This machine.
pub(crate) fn machine() -> Value {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let field = |text: &str, name: &str| {
        text.lines().find_map(|l| l.split_once(':').filter(|(k, _)| k.trim() == name)).map(|(_, v)| v.trim().to_owned())
    };
    let cpu = field(&read("/proc/cpuinfo"), "model name").unwrap_or_else(|| std::env::consts::ARCH.to_owned());
    let memory =
        field(&read("/proc/meminfo"), "MemTotal").and_then(|m| m.split_whitespace().next()?.parse::<u64>().ok());
    json!({
        "cpu": cpu,
        "cores": std::thread::available_parallelism().map_or(1, usize::from),
        "memory_mib": memory.map(|kib| kib / 1024),
        "os": read("/proc/sys/kernel/osrelease").trim(),
    })
}

/// Equal, where numbers that are not whole may differ by one part in 10^12: both sides round exact fractions once, printed as doubles.
pub(crate) fn same(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Array(a), Value::Array(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same(a, b)),
        (Value::Number(x), Value::Number(y)) if x.is_f64() || y.is_f64() => {
            matches!((x.as_f64(), y.as_f64()), (Some(x), Some(y)) if (x - y).abs() <= 1e-12 * y.abs().max(1.0))
        }
        _ => a == b,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_compared_exactly_except_for_the_last_digit_of_fractions() {
        assert!(same(&json!([[1, "a", null]]), &json!([[1, "a", null]])));
        assert!(same(&json!(16.925_318_246_110_326), &json!(16.925_318_246_110_33)));
        assert!(!same(&json!(16.9253), &json!(16.9254)));
        assert!(!same(&json!(1), &json!(2)) && !same(&json!([1]), &json!([1, 1])) && !same(&json!(null), &json!(0)));
    }
}
