//! Proven sums: a Groth16 proof of the masked sum over a range, checked here, unmasked, and compared with the native answer.
//!
//! Says     for every live segment of the projection under the certified root, `C` is the sum of `P[hi-1] - P[lo-1]` of the lane in which
//!          the asked sum stands, perhaps beside others.
//! Not      that the writer sorted and summed honestly, nor the unmasking: those are the key holder's word. The proof file holds `C`, no keys.
//! Source   DESIGN section 6; `docs/protocol/query.md`

use crate::ask::{Asked, moved};
use crate::error::ClientError;
use crate::open;
use crate::query::{Aggregate, AggregateValue, Answered, Evidence};
use crate::range::KeyRange;
use crate::schema::SumExpr;
use crate::session::{ATTEMPTS, Meter, Table, unexpected};
use crate::sums::centred;
use crate::transport::Transport;
use fluence_crypto::{Fr, field, roots};
use fluence_types::FieldBytes;
use fluence_types::proof::{PROOF_FILE_FORMAT, ProofContext, ProofFile};
use fluence_types::shape::{CircuitId, RangeSumShape};
use fluence_types::statement::{RangeSum, RangeSumQuery};
use fluence_verifier::answer::{self, AnswerError};
use fluence_verifier::groth16::{self, VerificationKey};
use fluence_wire::{Request, Response};
use num_bigint::BigInt;
use std::time::Instant;

/// What is summed under a proof.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum ProvenSum {
    /// COUNT(*).
    Count,
    /// SUM of a declared expression.
    Sum(SumExpr),
}

/// A sum with its proof, both checked.
#[derive(Clone, PartialEq, Debug)]
pub struct Proved {
    /// The sum, equal to the native answer.
    pub value: AggregateValue,
    /// The masked sum: third public input.
    pub masked: FieldBytes,
    /// The proof file, ready to be written.
    pub file: ProofFile,
    /// Constraints, as the node says.
    pub constraints: u64,
    /// Milliseconds the node took to prove, as it says.
    pub prove_ms: u64,
    /// Milliseconds to verify the proof here.
    pub verify_ms: f64,
    /// Evidence of the native answer it was compared with.
    pub evidence: Evidence,
}

impl<T: Transport> Table<T> {
    /// The circuit that proves sums over the table as it is now; `None` where no shape holds its live segments (compact first).
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn proof_circuit(&self) -> Result<Option<CircuitId>, ClientError> {
        let snapshot = self.session.catalogue(&self.db(), self.projection()).await?;
        Ok(RangeSumShape::for_live(snapshot.entry().live.len()).map(CircuitId::RangeSum))
    }

    /// Has a node prove a sum over a range, verifies the proof under `key`, and compares it with the native answer.
    /// `insecure_dev_key` goes into the proof file: whether `key` was made on one machine.
    ///
    /// # Errors
    /// [`ClientError`]; [`ClientError::Proof`] says what about the proof was wrong.
    pub async fn prove_sum(
        &self,
        range: &KeyRange,
        sum: &ProvenSum,
        key: &VerificationKey,
        insecure_dev_key: bool,
    ) -> Result<Proved, ClientError> {
        for attempt in 1.. {
            match self.try_prove(range, sum, key, insecure_dev_key).await {
                Err(error) if moved(&error) && attempt < ATTEMPTS => self.session.forget_entry(&self.handle),
                other => return other,
            }
        }
        unreachable!("the loop returns")
    }

    async fn try_prove(
        &self,
        range: &KeyRange,
        sum: &ProvenSum,
        key: &VerificationKey,
        insecure_dev_key: bool,
    ) -> Result<Proved, ClientError> {
        let schema = self.schema();
        let (summed, aggregate) = match sum {
            ProvenSum::Count => (schema.count_field(), Aggregate::Count),
            ProvenSum::Sum(expr) => (schema.expr_field(expr)?.0, Aggregate::Sum(expr.clone())),
        };
        let lane = summed.lane;
        let native: Answered<AggregateValue> = self.aggregate(range, &aggregate).await?;
        let mut meter = Meter::default();
        let positions = self.positions(range, &mut meter).await?;
        let (totals, _) = self.lane_totals(&positions, [lane], &mut meter).await?;
        let total = totals[&lane];
        let native_sum = summed.of(&centred(&total));
        let query =
            RangeSumQuery { db: self.db(), projection: self.projection(), lane, ranges: positions.row_ranges() };
        let mut masks = Fr::from(0u64);
        for (view, rows) in positions.views.iter().zip(&positions.rows) {
            masks += open::mask_difference(&self.handle.keys, view, lane, rows);
        }
        let digest = roots::query_digest(&query);

        let check = |asked: &Asked<'_>, response| {
            let wrong = |why: String| ClientError::Proof { node: *asked.node, why };
            let refuse = |why| asked.refuse(why);
            let proved = match response {
                Response::ProveRangeSum(proved) => *proved,
                other => return Err(unexpected(asked.node, "a proof", other)),
            };
            let statement = proved.statement();
            let circuit = CircuitId::RangeSum(proved.shape());
            let (fingerprint, proof) = (proved.fingerprint, proved.proof);
            let (constraints, prove_ms) = (proved.constraints, proved.prove_ms);
            let snapshot = answer::verify_snapshot(asked.trust, proved.snapshot).map_err(refuse)?;
            let entry = snapshot.entry();
            if entry.projection != query.projection {
                return Err(refuse(AnswerError::Projection { got: entry.projection, expected: query.projection }));
            }
            if entry.version != positions.entry.version || entry.live != positions.entry.live {
                return Err(refuse(AnswerError::Version { got: entry.version, expected: positions.entry.version }));
            }
            if statement.query_digest != digest {
                return Err(wrong("it is about another query".to_owned()));
            }
            if fingerprint != key.fingerprint() {
                return Err(wrong(format!("it was made under key {fingerprint}, trusted is {}", key.fingerprint())));
            }
            // The statement is put together from what was checked here, not from what the node wrote.
            let expected = RangeSum { db_root: snapshot.checkpoint().root, query_digest: digest, sum: statement.sum };
            let start = Instant::now();
            groth16::verify(key, &expected.public_inputs(), &proof).map_err(|e| wrong(e.to_string()))?;
            let verify_ms = start.elapsed().as_secs_f64() * 1e3;
            // The whole scalar, with what else stands in it.
            if field::from_bytes(&expected.sum) - masks != total {
                return Err(wrong("the proven sum is not the native one".to_owned()));
            }
            let file = ProofFile {
                format: PROOF_FILE_FORMAT.to_owned(),
                curve: "bls12381".to_owned(),
                protocol: "groth16".to_owned(),
                circuit,
                fingerprint,
                insecure_dev_key,
                public_inputs: expected.public_inputs().to_vec(),
                context: ProofContext::RangeSum {
                    height: snapshot.checkpoint().height,
                    db: query.db,
                    query: query.clone(),
                },
                proof,
                verification_key: key.to_hex(),
            };
            Ok((*snapshot.certified(), expected.sum, file, constraints, prove_ms, verify_ms))
        };
        let (_, (certified, masked, file, constraints, prove_ms, verify_ms)) =
            self.session.ask(&self.db(), &Request::ProveRangeSum(query.clone()), check).await?;
        self.session.note(&self.db(), &certified)?;
        if native.evidence.version != positions.entry.version {
            let why = AnswerError::Version { got: native.evidence.version, expected: positions.entry.version };
            return Err(ClientError::answer(&fluence_types::NodeId::default(), why));
        }
        debug_assert!(match &native.value {
            AggregateValue::Count(n) => BigInt::from(*n) == native_sum,
            AggregateValue::Sum { unscaled, .. } => BigInt::from(*unscaled) == native_sum,
            _ => native_sum == BigInt::from(0),
        });
        Ok(Proved { value: native.value, masked, file, constraints, prove_ms, verify_ms, evidence: native.evidence })
    }
}
