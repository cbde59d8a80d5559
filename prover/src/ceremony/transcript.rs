//! The transcript of a phase 2: what was started from what, and every contribution.
//!
//! ```text
//! head     8  "FLUTRN\0\1"
//!          1  length of the circuit's name, at most 64     ..  the name
//!          32 matrix hash     64  BLAKE2b-512 of phase1radix2m<k>     1  k     4  public inputs and the one     4  witnesses     (u32 little-endian)
//! 2        number of contributions (u16 little-endian), at most 1024
//! each     1  kind: 1 contributor, 2 beacon     1  length of the name, at most 64     ..  name, UTF-8
//!          beacon only: 32 value     1  log2 of the iterations
//!          48 delta in G1     96 delta in G2     48 s     48 s x     96 r x        x: this contribution's factor of delta
//! ```
//! Chain    T_0 = H(head), T_i = H(T_(i-1) || contribution i), H = BLAKE3 `derive_key` with the tag `FLU/prover/ceremony/v1`. r_i is the hash to G2 of
//!          T_(i-1) || contribution i up to delta in G2 || s || s x, so a proof fits one ceremony, one place in it, one delta and one name.

use super::Progress;
use super::error::Refusal;
use super::knowledge::Knowledge;
use super::points::{decode_single, encode};
use super::ratio::same;
use ark_bls12_381::{G1Affine, G2Affine};
use ark_ec::AffineRepr;
use ark_serialize::Compress;
use fluence_crypto::domain;
use fluence_types::shape::CircuitId;

/// Bytes of a contributor's name.
pub const NAME_BYTES_MAX: usize = 64;
/// A beacon is hashed at most 2^this times: half a day on one core.
pub const BEACON_ITERATIONS_LOG2_MAX: u8 = 40;
/// Contributions of one ceremony.
pub(super) const CONTRIBUTIONS_MAX: usize = 1024;
/// Bytes of the longest transcript.
pub(super) const TRANSCRIPT_BYTES_MAX: usize = 256 + CONTRIBUTIONS_MAX * (2 + NAME_BYTES_MAX + 33 + 336);
const CIRCUIT_NAME_BYTES_MAX: usize = 64;
const MAGIC: [u8; 8] = *b"FLUTRN\0\x01";

/// What a phase 2 was started from.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Head {
    pub(super) circuit: CircuitId,
    pub(super) matrix_hash: [u8; 32],
    pub(super) phase1_hash: [u8; 64],
    pub(super) log2: u32,
    pub(super) inputs: u32,
    pub(super) witnesses: u32,
}

/// Who contributed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Kind {
    Contributor,
    Beacon { value: [u8; 32], iterations_log2: u8 },
}

/// One contribution.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Contribution {
    pub(super) kind: Kind,
    pub(super) name: String,
    pub(super) delta_g1: G1Affine,
    pub(super) delta_g2: G2Affine,
    pub(super) proof: Knowledge,
}

/// Head and contributions.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Transcript {
    pub(super) head: Head,
    pub(super) contributions: Vec<Contribution>,
}

fn hash(parts: &[&[u8]]) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new_derive_key(domain::CEREMONY);
    parts.iter().for_each(|p| {
        hasher.update(p);
    });
    *hasher.finalize().as_bytes()
}

impl Head {
    fn bytes(&self) -> Vec<u8> {
        let name = self.circuit.to_string();
        let mut out = MAGIC.to_vec();
        out.push(name.len() as u8);
        out.extend_from_slice(name.as_bytes());
        out.extend_from_slice(&self.matrix_hash);
        out.extend_from_slice(&self.phase1_hash);
        out.push(self.log2 as u8);
        out.extend_from_slice(&self.inputs.to_le_bytes());
        out.extend_from_slice(&self.witnesses.to_le_bytes());
        out
    }

    pub(super) fn hash(&self) -> [u8; 32] {
        hash(&[&self.bytes()])
    }
}

impl Contribution {
    /// What is said before the proof.
    pub(super) fn claim(kind: &Kind, name: &str, delta_g1: &G1Affine, delta_g2: &G2Affine) -> Vec<u8> {
        let mut out = vec![if *kind == Kind::Contributor { 1 } else { 2 }, name.len() as u8];
        out.extend_from_slice(name.as_bytes());
        if let Kind::Beacon { value, iterations_log2 } = kind {
            out.extend_from_slice(value);
            out.push(*iterations_log2);
        }
        out.extend(encode(&[*delta_g1], Compress::Yes));
        out.extend(encode(&[*delta_g2], Compress::Yes));
        out
    }

    fn bytes(&self) -> Vec<u8> {
        let mut out = Self::claim(&self.kind, &self.name, &self.delta_g1, &self.delta_g2);
        out.extend(encode(&[self.proof.s, self.proof.s_x], Compress::Yes));
        out.extend(encode(&[self.proof.r_x], Compress::Yes));
        out
    }

    /// The bytes that r is a hash of.
    pub(super) fn message(before: [u8; 32], claim: Vec<u8>) -> impl Fn(&G1Affine, &G1Affine) -> Vec<u8> {
        move |s, s_x| [&before[..], &claim, &encode(&[*s, *s_x], Compress::Yes)].concat()
    }
}

impl Transcript {
    pub(super) fn bytes(&self) -> Vec<u8> {
        let mut out = self.head.bytes();
        out.extend_from_slice(&(self.contributions.len() as u16).to_le_bytes());
        self.contributions.iter().for_each(|c| out.extend(c.bytes()));
        out
    }

    /// T_n, and all before it.
    pub(super) fn hashes(&self) -> Vec<[u8; 32]> {
        let mut out = vec![self.head.hash()];
        for c in &self.contributions {
            out.push(hash(&[&out[out.len() - 1], &c.bytes()]));
        }
        out
    }

    pub(super) fn hash(&self) -> [u8; 32] {
        *self.hashes().last().expect("there is T_0")
    }

    /// The delta reached so far.
    pub(super) fn delta(&self) -> (G1Affine, G2Affine) {
        let none = (G1Affine::generator(), G2Affine::generator());
        self.contributions.last().map_or(none, |c| (c.delta_g1, c.delta_g2))
    }

    pub(super) fn has_ended(&self) -> bool {
        self.contributions.last().is_some_and(|c| c.kind != Kind::Contributor)
    }

    /// Decodes; every point is checked, no equation yet.
    pub(super) fn read(bytes: &[u8]) -> Result<Self, Refusal> {
        if bytes.len() > TRANSCRIPT_BYTES_MAX {
            let (got, max) = (bytes.len() as u64, TRANSCRIPT_BYTES_MAX as u64);
            return Err(Refusal::Limit { what: "the length of the transcript", got, max });
        }
        let mut from = Cursor(bytes);
        if from.array::<8>("the magic")? != MAGIC {
            return Err(Refusal::Magic("transcript"));
        }
        let circuit = from.text("the circuit's name", CIRCUIT_NAME_BYTES_MAX)?;
        let circuit = circuit.parse().map_err(|_| Refusal::Malformed("the circuit's name"))?;
        let head = Head {
            circuit,
            matrix_hash: from.array("the matrix hash")?,
            phase1_hash: from.array("the phase-1 hash")?,
            log2: from.array::<1>("log2 of the rows")?[0].into(),
            inputs: u32::from_le_bytes(from.array("the inputs")?),
            witnesses: u32::from_le_bytes(from.array("the witnesses")?),
        };
        // So that nobody makes a reader ask for memory: a circuit has fewer variables than this whatever its rows.
        if !(1..=super::CIRCUIT_POWER_MAX).contains(&head.log2) {
            return Err(Refusal::Limit {
                what: "log2 of the rows",
                got: head.log2.into(),
                max: super::CIRCUIT_POWER_MAX.into(),
            });
        }
        let variables = u64::from(head.inputs) + u64::from(head.witnesses);
        let max = 4u64 << head.log2;
        if head.inputs == 0 || variables > max {
            return Err(Refusal::Limit { what: "the number of variables", got: variables, max });
        }
        let count = u16::from_le_bytes(from.array("the number of contributions")?).into();
        if count > CONTRIBUTIONS_MAX {
            return Err(Refusal::Limit {
                what: "the number of contributions",
                got: count as u64,
                max: CONTRIBUTIONS_MAX as u64,
            });
        }
        let contributions = (0..count).map(|_| Contribution::read(&mut from)).collect::<Result<Vec<_>, _>>()?;
        if !from.0.is_empty() {
            return Err(Refusal::Malformed("the transcript's end"));
        }
        Ok(Self { head, contributions })
    }

    /// Checks every contribution's proof and the chain of deltas from 1. `iterate`: also hash the beacon again, as often as it says.
    pub(super) fn check(&self, iterate: bool, progress: Progress<'_>) -> Result<(), Refusal> {
        let (mut delta, mut before) = (G1Affine::generator(), self.head.hash());
        for (i, c) in self.contributions.iter().enumerate() {
            let wrong = |why| Refusal::Contribution { number: i + 1, why };
            if i > 0 && self.contributions[i - 1].kind != Kind::Contributor {
                return Err(wrong("it follows the beacon, which is the last"));
            }
            if c.delta_g1 == delta || c.proof.s == c.proof.s_x {
                return Err(wrong("its factor is 1: nothing was contributed"));
            }
            let claim = Contribution::claim(&c.kind, &c.name, &c.delta_g1, &c.delta_g2);
            let ratio = c.proof.check(Contribution::message(before, claim));
            let ratio =
                ratio.ok_or(wrong("its proof of knowledge does not hold, or is of another ceremony or place"))?;
            if !same((delta, c.delta_g1), ratio) {
                return Err(wrong("its delta is not the one before times the factor proven"));
            }
            if !same((G1Affine::generator(), c.delta_g1), (G2Affine::generator(), c.delta_g2)) {
                return Err(wrong("its delta in G2 is not that in G1"));
            }
            if let Kind::Beacon { value, iterations_log2 } = &c.kind
                && iterate
            {
                let again = super::phase2::beacon_contribution(&self.before(i), *value, *iterations_log2, progress).0;
                if again != *c {
                    return Err(wrong("it is not what its beacon makes"));
                }
            }
            before = hash(&[&before, &c.bytes()]);
            delta = c.delta_g1;
        }
        Ok(())
    }

    /// The transcript as it was before contribution `i`.
    fn before(&self, i: usize) -> Self {
        Self { head: self.head.clone(), contributions: self.contributions[..i].to_vec() }
    }
}

impl Contribution {
    fn read(from: &mut Cursor<'_>) -> Result<Self, Refusal> {
        let kind = from.array::<1>("a contribution's kind")?[0];
        let name = from.text("a contributor's name", NAME_BYTES_MAX)?;
        let kind = match kind {
            1 => Kind::Contributor,
            2 => {
                let (value, [iterations_log2]) =
                    (from.array("a beacon's value")?, from.array("a beacon's iterations")?);
                if iterations_log2 > BEACON_ITERATIONS_LOG2_MAX {
                    let (got, max) = (iterations_log2.into(), BEACON_ITERATIONS_LOG2_MAX.into());
                    return Err(Refusal::Limit { what: "log2 of a beacon's iterations", got, max });
                }
                Kind::Beacon { value, iterations_log2 }
            }
            _ => return Err(Refusal::Malformed("a contribution's kind")),
        };
        let g1 = |from: &mut Cursor<'_>, what| decode_single::<G1Affine>(&from.array::<48>(what)?, Compress::Yes, what);
        let g2 = |from: &mut Cursor<'_>, what| decode_single::<G2Affine>(&from.array::<96>(what)?, Compress::Yes, what);
        let (delta_g1, delta_g2) = (g1(from, "delta in G1")?, g2(from, "delta in G2")?);
        let proof = Knowledge { s: g1(from, "s")?, s_x: g1(from, "s x")?, r_x: g2(from, "r x")? };
        Ok(Self { kind, name, delta_g1, delta_g2, proof })
    }
}

/// A name is shown on terminals: no control characters.
pub(super) fn check_name(name: &str) -> Result<(), Refusal> {
    if name.len() > NAME_BYTES_MAX || name.chars().any(char::is_control) {
        return Err(Refusal::Malformed("a contributor's name"));
    }
    Ok(())
}

struct Cursor<'a>(&'a [u8]);

impl Cursor<'_> {
    fn take(&mut self, n: usize, what: &'static str) -> Result<&[u8], Refusal> {
        let (head, rest) = self.0.split_at_checked(n).ok_or(Refusal::Malformed(what))?;
        self.0 = rest;
        Ok(head)
    }

    fn array<const N: usize>(&mut self, what: &'static str) -> Result<[u8; N], Refusal> {
        Ok(self.take(N, what)?.try_into().expect("as many as were taken"))
    }

    fn text(&mut self, what: &'static str, max: usize) -> Result<String, Refusal> {
        let length = self.array::<1>(what)?[0] as usize;
        if length > max {
            return Err(Refusal::Limit { what, got: length as u64, max: max as u64 });
        }
        let text = std::str::from_utf8(self.take(length, what)?).map_err(|_| Refusal::Malformed(what))?.to_owned();
        check_name(&text).map_err(|_| Refusal::Malformed(what))?;
        Ok(text)
    }
}
