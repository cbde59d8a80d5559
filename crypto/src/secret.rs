//! Secret bytes: wiped when dropped, compared in constant time, lent to a closure, printed by nobody.
//!
//! Rule    no `Debug`, `Clone`, `Serialize` or `Display`, so a key reaches no log, error or file by accident. The bytes stay at one
//!         place on the heap, so that moving the owner leaves no copy behind.
//! Source  the habit is commonware's `secret.rs`

use rand::{CryptoRng, RngCore};
use subtle::ConstantTimeEq;
use zeroize::Zeroize;

/// `N` secret bytes.
pub struct Secret<const N: usize>(Box<[u8; N]>);

impl<const N: usize> Secret<N> {
    /// Takes the bytes. Wipe your own copy if you keep one; [`Self::fill`] avoids it.
    #[must_use]
    pub fn new(bytes: impl Into<Box<[u8; N]>>) -> Self {
        Self(bytes.into())
    }

    /// Bytes written in place by `write`.
    #[must_use]
    pub fn fill(write: impl FnOnce(&mut [u8; N])) -> Self {
        let mut secret = Self(Box::new([0; N]));
        write(&mut secret.0);
        secret
    }

    /// Fresh random bytes.
    #[must_use]
    pub fn random(rng: &mut (impl CryptoRng + RngCore + ?Sized)) -> Self {
        Self::fill(|bytes| rng.fill_bytes(bytes))
    }

    /// Lends the bytes to `f`.
    pub fn expose<R>(&self, f: impl FnOnce(&[u8; N]) -> R) -> R {
        f(&self.0)
    }

    /// Whether two secrets are equal, in time that does not depend on where they differ.
    #[must_use]
    pub fn ct_eq(&self, other: &Self) -> bool {
        self.0.as_slice().ct_eq(other.0.as_slice()).into()
    }
}

impl<const N: usize> Drop for Secret<N> {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng;

    #[test]
    fn equality_follows_the_bytes() {
        let mut rng = rand::rngs::StdRng::seed_from_u64(1);
        let (a, b) = (Secret::<32>::random(&mut rng), Secret::<32>::random(&mut rng));
        assert!(!a.ct_eq(&b));
        assert!(a.ct_eq(&Secret::new(a.expose(|x| *x))));
    }

    /// Compiles only while neither trait is there: with one, two candidates for `marker` would be ambiguous.
    #[test]
    fn secret_has_no_debug_display_or_clone() {
        trait NotImplemented<A> {
            fn marker() {}
        }
        struct Plain;
        struct Has;
        struct HasDisplay;
        struct HasClone;
        impl<T: ?Sized> NotImplemented<Plain> for T {}
        impl<T: ?Sized + std::fmt::Debug> NotImplemented<Has> for T {}
        impl<T: ?Sized + std::fmt::Display> NotImplemented<HasDisplay> for T {}
        impl<T: Clone> NotImplemented<HasClone> for T {}
        <Secret<32> as NotImplemented<_>>::marker();
    }
}
