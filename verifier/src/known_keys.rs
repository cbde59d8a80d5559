//! Verification keys compiled into the binary: those of ceremonies whose transcript anyone can check.
//!
//! Rule    a key enters this table with its ceremony's transcript and in no other way. There has been no ceremony yet, so it is empty:
//!         every key of today is a development key, which comes from `--vkey FILE` or from the chain, and is called what it is.

/// A key of a ceremony.
#[derive(Clone, Copy, Debug)]
pub struct KnownKey {
    /// The circuit's name.
    pub circuit: &'static str,
    /// The canonical bytes in hex. Checked like any other key when used.
    pub key: &'static str,
}

/// The table.
pub const KNOWN_KEYS: &[KnownKey] = &[];
