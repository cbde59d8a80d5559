//! `SET fluence.proof = 'groth16'`: a proven sum comes with a succinct proof, which `fluence_last_proof()` gives.
//!
//! Says    what the proof file says ([docs/protocol/proof-file.md]): the masked sum over the range, under the root that members certified
//! Checked before the answer is given: under the key that the gateway trusts, against the native sum
//! Costs   the node some tenths of a second a sum

use crate::error::{SqlError, SqlState};
use crate::store::{ProofKeys, Store};
use datafusion::arrow::datatypes::DataType;
use datafusion::logical_expr::{ColumnarValue, ScalarUDF, Volatility, create_udf};
use datafusion::scalar::ScalarValue;
use fluence_client::prove::ProvenSum;
use fluence_client::{Aggregate, KeyRange};
use fluence_types::proof::ProofFile;
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// A session's proofs.
#[derive(Default)]
pub(crate) struct Proofs {
    keys: Option<Arc<dyn ProofKeys>>,
    wanted: AtomicBool,
    /// Those of the statement that runs, and a line for each.
    running: Mutex<(Vec<ProofFile>, Vec<String>)>,
    /// Those of the last statement that had some.
    last: Mutex<Vec<ProofFile>>,
}

impl fmt::Debug for Proofs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Proofs")
    }
}

impl Proofs {
    pub(crate) fn new(keys: Option<Arc<dyn ProofKeys>>) -> Arc<Self> {
        Arc::new(Self { keys, ..Self::default() })
    }

    /// A statement begins, of a session that wants proofs or not.
    ///
    /// # Errors
    /// [`SqlState::FeatureNotSupported`] where proofs are wanted and no key is trusted.
    pub(crate) fn begin(&self, wanted: bool) -> Result<(), SqlError> {
        if wanted && self.keys.is_none() {
            let why = SqlError::unsupported("fluence.proof = 'groth16' without verification keys");
            return Err(why.hint("`fluence sql` takes those of the home's vkeys folder"));
        }
        self.wanted.store(wanted, Ordering::Relaxed);
        *self.running.lock().unwrap_or_else(PoisonError::into_inner) = Default::default();
        Ok(())
    }

    /// A line for each proof of the statement that runs.
    pub(crate) fn lines(&self) -> Vec<String> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner).1.clone()
    }

    /// Has a sum proven, where that is wanted.
    ///
    /// # Errors
    /// [`SqlState::FeatureNotSupported`] for an aggregate without a circuit; what the node and the check of its proof say.
    pub(crate) async fn prove(
        &self,
        store: &dyn Store,
        table: &str,
        range: &KeyRange,
        aggregate: &Aggregate,
    ) -> Result<(), SqlError> {
        let (true, Some(keys)) = (self.wanted.load(Ordering::Relaxed), &self.keys) else { return Ok(()) };
        let sum = match aggregate {
            Aggregate::Count => ProvenSum::Count,
            Aggregate::Sum(expr) => ProvenSum::Sum(expr.clone()),
            _ => {
                let why = SqlError::unsupported(
                    "a succinct proof of anything but COUNT(*), SUM, and AVG of NOT NULL columns",
                );
                return Err(why.hint("SET fluence.proof = 'native'"));
            }
        };
        let proved = store.prove(table, range, &sum, keys.as_ref()).await?;
        let line = format!(
            "succinct proof: {}, {} constraints, {} ms to prove, {:.1} ms to verify",
            proved.file.circuit, proved.constraints, proved.prove_ms, proved.verify_ms
        );
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        running.0.push(proved.file);
        running.1.push(line);
        self.last.lock().unwrap_or_else(PoisonError::into_inner).clone_from(&running.0);
        Ok(())
    }

    /// The proof files of the last statement that had some, as JSON: one as it is, several as an array.
    fn last(&self) -> Result<Option<String>, SqlError> {
        let last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let text = match last.as_slice() {
            [] => return Ok(None),
            [one] => serde_json::to_string(one),
            many => serde_json::to_string(many),
        };
        text.map(Some).map_err(|e| SqlError::new(SqlState::InternalError, e.to_string()))
    }
}

/// `fluence_last_proof()`.
pub(crate) fn last_proof(proofs: &Arc<Proofs>) -> ScalarUDF {
    let proofs = Arc::clone(proofs);
    let run = move |_: &[ColumnarValue]| Ok(ColumnarValue::Scalar(ScalarValue::Utf8(proofs.last()?)));
    create_udf("fluence_last_proof", Vec::new(), DataType::Utf8, Volatility::Volatile, Arc::new(run))
}
