//! Verification keys compiled into the binary: those of ceremonies whose transcript anyone can check.
//!
//! Rule    a key enters this table with its ceremony's transcript and in no other way (`docs/protocol/ceremony.md`), and the contracts' own table,
//!         `CeremonyKeys.sol`, in the same commit: a test holds the two equal. There has been no ceremony yet, so both are empty:
//!         every key of today is a development key, which comes from `--vkey FILE` or from the chain, and is called what it is.

/// A key of a ceremony.
#[derive(Clone, Copy, Debug)]
pub struct KnownKey {
    /// The circuit's name.
    pub circuit: &'static str,
    /// The canonical bytes in hex. Checked like any other key when used.
    pub key: &'static str,
    /// The last hash of the ceremony's transcript, in hex.
    pub transcript: &'static str,
}

/// The table.
pub const KNOWN_KEYS: &[KnownKey] = &[];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::groth16::VerificationKey;

    /// 32-byte literals of a Solidity source, in order.
    fn hashes(source: &str) -> Vec<String> {
        let words = source.split(|c: char| !c.is_ascii_alphanumeric());
        let digits = words.filter_map(|w| w.strip_prefix("0x")).filter(|d| d.len() == 64);
        digits.map(str::to_lowercase).collect()
    }

    #[test]
    fn the_contracts_know_the_same_keys() {
        let solidity = include_str!("../../contracts/src/libraries/CeremonyKeys.sol");
        let ours =
            |k: &KnownKey| hex::encode(VerificationKey::from_hex(k.key).expect("a known key is one").pinned_hash());
        assert_eq!(hashes(solidity), KNOWN_KEYS.iter().map(ours).collect::<Vec<_>>());
        // The reading finds what there is, or the test could not fail.
        let one = "ab".repeat(32);
        assert_eq!(hashes(&format!("known[0] = 0x{one}; // 0x12")), [one]);
    }

    #[test]
    fn every_key_names_its_circuit_and_transcript() {
        for k in KNOWN_KEYS {
            k.circuit.parse::<fluence_types::shape::CircuitId>().unwrap();
            k.transcript.parse::<fluence_types::TranscriptHash>().unwrap();
        }
    }
}
