//! The constraint builder that our circuits are written in: numbers with their value and their linear combination.
//!
//! Why      Adding, scaling and picking words are free in R1CS, and a proof needs the rows only once per key. So a [`Num`] carries its
//!          value always and its terms only while rows are built; making a witness for a proof is then plain field arithmetic.
//! Rule     a number is constrained only by [`Cs::enforce`] and what calls it. Every witness and every constraint has a name, so that
//!          a test can lie about one value, let the honest code go on from the lie, and see which constraint catches it.
//! Size     counted by tests, pinned in `circuits/shapes.toml`

use ark_bls12_381::Fr;
use ark_ff::{BigInt, Field, One, PrimeField, Zero};
use ark_relations::gr1cs::{ConstraintSystemRef, LinearCombination, SynthesisError, Variable};
use std::ops::{Add, Neg, Sub};

/// A value and, while rows are built, the linear combination that computes it.
#[derive(Clone, Debug)]
pub(crate) struct Num {
    value: Fr,
    terms: Vec<(Fr, Variable)>,
}

impl Num {
    pub(crate) fn constant(value: impl Into<Fr>) -> Self {
        let value = value.into();
        Self { value, terms: if value.is_zero() { Vec::new() } else { vec![(value, Variable::One)] } }
    }

    pub(crate) fn zero() -> Self {
        Self::constant(0u64)
    }

    pub(crate) fn one() -> Self {
        Self::constant(1u64)
    }

    /// The value in the assignment at hand; 0 while a key is made.
    pub(crate) fn value(&self) -> Fr {
        self.value
    }

    /// The value as an integer, if it is small; 0 otherwise, which no honest assignment meets.
    pub(crate) fn int(&self) -> u64 {
        match self.value.into_bigint().0 {
            [n, 0, 0, 0] => n,
            _ => 0,
        }
    }

    pub(crate) fn is_set(&self) -> bool {
        self.value.is_one()
    }

    pub(crate) fn scale(&self, by: impl Into<Fr>) -> Self {
        let by = by.into();
        Self { value: self.value * by, terms: self.terms.iter().map(|(c, v)| (*c * by, *v)).collect() }
    }

    /// `sum bits[i] * 2^(first + i)`.
    pub(crate) fn from_bits(bits: &[Self], first: u32) -> Self {
        let mut weight = Fr::from(2u64).pow([u64::from(first)]);
        let mut sum = Self::zero();
        for bit in bits {
            sum.add_scaled(bit, weight);
            weight += weight;
        }
        sum
    }

    pub(crate) fn sum<'a>(nums: impl IntoIterator<Item = &'a Self>) -> Self {
        let mut sum = Self::zero();
        nums.into_iter().for_each(|n| sum.add_scaled(n, Fr::one()));
        sum
    }

    pub(crate) fn add_scaled(&mut self, other: &Self, by: Fr) {
        self.value += other.value * by;
        self.terms.extend(other.terms.iter().map(|(c, v)| (*c * by, *v)));
    }

    /// `sum weights[i] * vars[i] + constant`, where each of `vars` is a single variable.
    pub(crate) fn dense(value: Fr, weights: &[Fr], vars: &[Self], constant: Fr) -> Self {
        let mut terms = Vec::new();
        if vars.first().is_some_and(|v| !v.terms.is_empty()) {
            terms.reserve_exact(vars.len() + 1);
            terms.extend(weights.iter().zip(vars).map(|(w, v)| (*w, v.terms[0].1)));
            terms.push((constant, Variable::One));
        }
        Self { value, terms }
    }

    fn combination(&self) -> LinearCombination<Fr> {
        let mut lc = LinearCombination(self.terms.clone());
        lc.compactify();
        lc.0.retain(|(c, _)| !c.is_zero());
        lc
    }
}

impl Add for &Num {
    type Output = Num;
    fn add(self, other: Self) -> Num {
        let mut sum = self.clone();
        sum.add_scaled(other, Fr::one());
        sum
    }
}

impl Sub for &Num {
    type Output = Num;
    fn sub(self, other: Self) -> Num {
        let mut difference = self.clone();
        difference.add_scaled(other, -Fr::one());
        difference
    }
}

impl Neg for &Num {
    type Output = Num;
    fn neg(self) -> Num {
        self.scale(-Fr::one())
    }
}

/// A false value that a test puts in place of the `occurrence`-th witness of that name.
#[cfg(test)]
#[derive(Clone, Copy, Debug)]
pub(crate) struct Lie {
    pub(crate) name: &'static str,
    pub(crate) occurrence: usize,
    pub(crate) value: BigInt<4>,
}

/// A constraint system being filled.
pub(crate) struct Cs {
    inner: ConstraintSystemRef<Fr>,
    rows: bool,
    /// Name of each constraint, in order; empty where no rows are built.
    pub(crate) names: Vec<&'static str>,
    #[cfg(test)]
    pub(crate) lies: Vec<Lie>,
    /// Witnesses that may have any value, in the assignment at hand: inverses of 0.
    #[cfg(test)]
    pub(crate) free: usize,
    #[cfg(test)]
    seen: std::collections::HashMap<&'static str, usize>,
}

impl Cs {
    pub(crate) fn new(inner: ConstraintSystemRef<Fr>) -> Self {
        let rows = inner.should_construct_matrices();
        Self {
            inner,
            rows,
            names: Vec::new(),
            #[cfg(test)]
            lies: Vec::new(),
            #[cfg(test)]
            free: 0,
            #[cfg(test)]
            seen: std::collections::HashMap::new(),
        }
    }

    /// `a * b = c`
    pub(crate) fn enforce(&mut self, name: &'static str, a: &Num, b: &Num, c: &Num) -> Result<(), SynthesisError> {
        if self.rows {
            self.names.push(name);
            self.inner.enforce_r1cs_constraint(|| a.combination(), || b.combination(), || c.combination())?;
        }
        Ok(())
    }

    /// `a = b`
    pub(crate) fn enforce_equal(&mut self, name: &'static str, a: &Num, b: &Num) -> Result<(), SynthesisError> {
        self.enforce(name, a, &Num::one(), b)
    }

    /// `a = 0` where `flag` is 1
    pub(crate) fn enforce_zero_if(&mut self, name: &'static str, flag: &Num, a: &Num) -> Result<(), SynthesisError> {
        self.enforce(name, flag, a, &Num::zero())
    }

    pub(crate) fn input(&mut self, value: Fr) -> Result<Num, SynthesisError> {
        let variable = self.inner.new_input_variable(|| Ok(value))?;
        Ok(Num { value, terms: self.terms(variable) })
    }

    /// A fresh, unconstrained number.
    pub(crate) fn witness(&mut self, name: &'static str, honest: Fr) -> Result<Num, SynthesisError> {
        let value = match self.lie(name) {
            Some(lie) => Fr::from_bigint(lie).expect("a lie about a scalar is a scalar"),
            None => honest,
        };
        self.fresh(value)
    }

    fn fresh(&mut self, value: Fr) -> Result<Num, SynthesisError> {
        let variable = self.inner.new_witness_variable(|| Ok(value))?;
        Ok(Num { value, terms: self.terms(variable) })
    }

    fn terms(&self, variable: Variable) -> Vec<(Fr, Variable)> {
        if self.rows { vec![(Fr::one(), variable)] } else { Vec::new() }
    }

    #[cfg(test)]
    fn lie(&mut self, name: &'static str) -> Option<BigInt<4>> {
        let count = self.seen.entry(name).or_default();
        *count += 1;
        let occurrence = *count - 1;
        self.lies.iter().find(|l| l.name == name && l.occurrence == occurrence).map(|l| l.value)
    }

    #[cfg(not(test))]
    #[allow(clippy::unused_self, clippy::needless_pass_by_ref_mut)]
    fn lie(&mut self, _name: &'static str) -> Option<BigInt<4>> {
        None
    }

    /// A number that is 0 or 1.
    pub(crate) fn boolean(&mut self, name: &'static str, honest: bool) -> Result<Num, SynthesisError> {
        let bit = self.witness(name, Fr::from(honest))?;
        self.enforce(name, &bit, &(&bit - &Num::one()), &Num::zero())?;
        Ok(bit)
    }

    /// `count` booleans, lowest first: the low bits of `honest`. What they are the bits of is for the caller to enforce.
    pub(crate) fn bits(
        &mut self,
        name: &'static str,
        honest: BigInt<4>,
        count: u32,
    ) -> Result<Vec<Num>, SynthesisError> {
        let value = self.lie(name).unwrap_or(honest);
        let one = Num::one();
        (0..count)
            .map(|i| {
                let bit = self.fresh(Fr::from(value.0[i as usize / 64] >> (i % 64) & 1))?;
                self.enforce(name, &bit, &(&bit - &one), &Num::zero())?;
                Ok(bit)
            })
            .collect()
    }

    /// Enforces `0 <= x < 2^count`, and gives the bits. `2^count` must be below r, so that they are the only ones.
    pub(crate) fn range(&mut self, name: &'static str, x: &Num, count: u32) -> Result<Vec<Num>, SynthesisError> {
        debug_assert!(count < Fr::MODULUS_BIT_SIZE);
        let bits = self.bits(name, x.value.into_bigint(), count)?;
        self.enforce_equal(name, x, &Num::from_bits(&bits, 0))?;
        Ok(bits)
    }

    /// `a * b` as one variable.
    pub(crate) fn product(&mut self, name: &'static str, a: &Num, b: &Num) -> Result<Num, SynthesisError> {
        let product = self.witness(name, a.value * b.value)?;
        self.enforce(name, a, b, &product)?;
        Ok(product)
    }

    /// `flag ? yes : no` as one variable, for a boolean `flag`.
    pub(crate) fn select(
        &mut self,
        name: &'static str,
        flag: &Num,
        yes: &Num,
        no: &Num,
    ) -> Result<Num, SynthesisError> {
        let picked = self.witness(name, no.value + flag.value * (yes.value - no.value))?;
        self.enforce(name, flag, &(yes - no), &(&picked - no))?;
        Ok(picked)
    }

    /// The same number as one variable: worth its constraint where many terms would be copied into many rows.
    pub(crate) fn name(&mut self, name: &'static str, x: &Num) -> Result<Num, SynthesisError> {
        let named = self.witness(name, x.value)?;
        self.enforce_equal(name, x, &named)?;
        Ok(named)
    }

    /// 1 where `x` is 0, else 0.
    pub(crate) fn is_zero(&mut self, name: &'static str, x: &Num) -> Result<Num, SynthesisError> {
        let zero = self.witness(name, Fr::from(x.value.is_zero()))?;
        let inverse = self.fresh(x.value.inverse().unwrap_or_default())?;
        #[cfg(test)]
        if x.value.is_zero() {
            self.free += 1;
        }
        self.enforce(name, x, &inverse, &(&Num::one() - &zero))?;
        self.enforce(name, x, &zero, &Num::zero())?;
        Ok(zero)
    }
}
