//! Reads `tests/vectors/*.json`, which a Python program with its own arithmetic writes and Solidity reads too.

use crate::{Fr, field};
use fluence_types::FieldBytes;
use serde_json::Value;

/// The objects of a file.
pub(crate) fn load(name: &str) -> Vec<Value> {
    let path = format!("{}/../tests/vectors/{name}.json", env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{path}: {e}"));
    let list: Vec<Value> = serde_json::from_str(&text).unwrap();
    assert!(!list.is_empty());
    list
}

/// A value that parses from its text.
pub(crate) fn parsed<T: std::str::FromStr<Err: std::fmt::Debug>>(v: &Value) -> T {
    v.as_str().unwrap().parse().unwrap()
}

pub(crate) fn scalar(v: &Value) -> Fr {
    field::from_bytes(&parsed::<FieldBytes>(v))
}

pub(crate) fn scalars(v: &Value) -> Vec<Fr> {
    v.as_array().unwrap().iter().map(scalar).collect()
}

pub(crate) fn number(v: &Value) -> u64 {
    v.as_u64().unwrap_or_else(|| parsed::<FieldBytes>(v).to_u64().unwrap())
}

pub(crate) fn numbers(v: &Value) -> Vec<u64> {
    v.as_array().unwrap().iter().map(number).collect()
}

/// The cells of every vector: scalar j of cell i is `(2^64 + 8 i + j + 1)^5`.
pub(crate) fn cells(count: u64) -> Vec<[Fr; 8]> {
    let scalar = |i: u64, j: usize| {
        let x = Fr::from((1u128 << 64) + 8 * u128::from(i) + j as u128 + 1);
        x * x * x * x * x
    };
    (0..count).map(|i| std::array::from_fn(|j| scalar(i, j))).collect()
}
