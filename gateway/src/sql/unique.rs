//! Keys that must be unique: which rows of a table have one of some keys, as the transaction sees it.
//!
//! How     few keys are looked up one by one, many by one read from the least to the greatest. What is read is noted, so that two
//!         transactions that write one key conflict.
//! Source  DESIGN section 10; SQL's rule that NULL is never equal: a key with a NULL in it is unique

use super::catalog::TableDef;
use super::work::Work;
use crate::error::{SqlError, SqlState};
use crate::store::Store;
use datafusion::arrow::array::{Array, ArrayRef, RecordBatch};
use fluence_client::key::Keys;
use fluence_client::{KeyRange, Select, Value};
use std::collections::{BTreeMap, HashMap};
use std::ops::Bound;
use std::sync::Arc;

/// Keys that are looked up one by one.
const ONE_BY_ONE: usize = 8;

/// A rule of a table: no two rows agree in these columns.
#[derive(Clone, Debug)]
pub(crate) struct Rule {
    pub(crate) name: String,
    /// Names in the sealed schema.
    pub(crate) columns: Vec<String>,
    /// The copy that is sorted by them.
    pub(crate) copy: String,
}

/// The rules of a table.
pub(crate) fn rules(def: &TableDef) -> Vec<Rule> {
    let mut rules = Vec::new();
    if def.primary {
        let name = format!("{}_pkey", def.name);
        rules.push(Rule { name, columns: def.key.clone(), copy: def.physical.clone() });
    }
    rules.extend(def.indexes.iter().filter(|i| i.unique).map(|i| Rule {
        name: i.name.clone(),
        columns: i.columns.clone(),
        copy: i.physical.clone(),
    }));
    rules
}

/// The columns of a rule in whole rows.
fn columns_of(def: &TableDef, rule: &Rule, batch: &RecordBatch) -> Vec<ArrayRef> {
    let place = |c: &String| def.place(c).expect("a rule's columns are the table's");
    rule.columns.iter().map(|c| Arc::clone(batch.column(place(c)))).collect()
}

/// The keys of whole rows, `None` where one has a NULL in it.
pub(crate) fn keys_of(def: &TableDef, rule: &Rule, batch: &RecordBatch) -> Vec<Option<Vec<u8>>> {
    let columns = columns_of(def, rule, batch);
    let keys = Keys::of(&columns);
    (0..batch.num_rows()).map(|row| columns.iter().all(|c| c.is_valid(row)).then(|| keys.get(row).to_vec())).collect()
}

/// The values of the keys of whole rows, in key order, each once, without those that have a NULL in them.
fn wanted(def: &TableDef, rule: &Rule, batch: &RecordBatch) -> BTreeMap<Vec<u8>, Vec<Value>> {
    let columns = columns_of(def, rule, batch);
    let values = |row| columns.iter().map(|c| Value::at(c, row).expect("a column of the table")).collect::<Vec<_>>();
    let keys = keys_of(def, rule, batch).into_iter().enumerate();
    keys.filter_map(|(row, key)| Some((key?, values(row)))).collect()
}

/// Whole rows of the table, as the transaction sees them, whose keys are among those of `batch`; by key.
pub(crate) async fn find(
    def: &TableDef,
    rule: &Rule,
    store: &dyn Store,
    work: &Work,
    batch: &RecordBatch,
) -> Result<HashMap<Vec<u8>, RecordBatch>, SqlError> {
    let wanted = wanted(def, rule, batch);
    let mut found = HashMap::new();
    let (Some(first), Some(last)) = (wanted.values().next(), wanted.values().next_back()) else { return Ok(found) };
    let ranges: Vec<KeyRange> = if wanted.len() <= ONE_BY_ONE {
        wanted.values().cloned().map(KeyRange::prefix).collect()
    } else {
        vec![KeyRange { lower: Bound::Included(first.clone()), upper: Bound::Included(last.clone()) }]
    };
    let columns: Vec<String> = def.columns.iter().map(|c| c.physical.clone()).collect();
    let mut certified = Vec::new();
    for range in ranges {
        let select = Select { columns: columns.clone(), ..Select::range(range) };
        let (batches, evidence) = store.read(&rule.copy, &select).await?;
        work.saw(&rule.copy, &select.range, &evidence, false)?;
        certified.extend(batches);
    }
    for batch in work.delta(&rule.copy).over(certified) {
        for (row, key) in keys_of(def, rule, &batch).into_iter().enumerate() {
            if let Some(key) = key.filter(|k| wanted.contains_key(k)) {
                found.insert(key, batch.slice(row, 1));
            }
        }
    }
    Ok(found)
}

/// The error of a key that is there already.
pub(crate) fn violation(def: &TableDef, rule: &Rule, batch: &RecordBatch, row: usize) -> SqlError {
    let columns = columns_of(def, rule, batch);
    let values: Vec<String> =
        columns.iter().map(|c| Value::at(c, row).map_or_else(String::new, |v| v.to_string())).collect();
    let names: Vec<String> =
        rule.columns.iter().map(|c| def.place(c).map_or_else(|| c.clone(), |p| def.columns[p].name.clone())).collect();
    SqlError::new(
        SqlState::UniqueViolation,
        format!("duplicate key value violates unique constraint \"{}\"", rule.name),
    )
    .table(&def.name)
    .constraint(&rule.name)
    .detail(format!("Key ({})=({}) already exists.", names.join(", "), values.join(", ")))
}
