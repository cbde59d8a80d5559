//! Domain tags: one for every hash, signature and key derivation that is not a Poseidon2 node.
//!
//! Form    `FLU/<crate>/<use>/v1`. A changed tag is a changed format.
//! Rule    no tag is a prefix of another, so `tag || bytes` has one reading; a test holds the table to it.

macro_rules! tags {
    ($($(#[$doc:meta])* $name:ident = $tag:literal;)*) => {
        $($(#[$doc])* pub const $name: &str = $tag;)*
        /// Every tag.
        pub const ALL: &[&str] = &[$($name),*];
    };
}

tags! {
    /// Operation id: Keccak-256 of the tag and the canonical unsigned operation.
    OP = "FLU/crypto/op/v1";
    /// Block hash: Keccak-256 of the tag and the canonical header.
    BLOCK = "FLU/crypto/block/v1";
    /// Hash over the operation ids of a block.
    OPS = "FLU/crypto/ops/v2";
    /// Hash of a member list.
    MEMBERS = "FLU/crypto/members/v1";
    /// A member's signature on an availability receipt.
    RECEIPT = "FLU/crypto/receipt/v1";
    /// Namespace of the votes of a cluster, followed by its database id.
    VOTE = "FLU/crypto/vote/v1";
    /// A node's identity seed to its vote key.
    KEY_VOTE = "FLU/crypto/key-vote/v1";
    /// A node's proof that it has the vote key it names.
    POSSESSION = "FLU/crypto/possession/v1";
    /// An owner's signature on what a file of rows was exported from.
    EXPORT = "FLU/crypto/export/v1";
    /// Digest of a batch of exported rows.
    EXPORT_ROWS = "FLU/client/export-rows/v1";
    /// A member's signature on a seat change.
    SEAT = "FLU/crypto/seat/v1";
    /// Seed of the storage proof with which a newcomer shows that it has everything.
    READINESS = "FLU/consensus/readiness/v1";
    /// Seed of the draw of a database's members.
    PLACEMENT = "FLU/crypto/placement/v1";
    /// A node's signature on what it says of itself over the network.
    NODE_STATUS = "FLU/node/status/v1";
    /// Root key to table key.
    KEY_TABLE = "FLU/crypto/key-table/v1";
    /// Root key to the key that seals a table's schemas.
    KEY_SCHEMA = "FLU/crypto/key-schema/v1";
    /// Root key to the owner's secp256k1 signing key.
    KEY_OWNER = "FLU/crypto/key-owner/v1";
    /// Root key to the key that makes segment ids.
    KEY_SEGMENT_ID = "FLU/crypto/key-segment-id/v1";
    /// Table key to the key of one lane of one segment, for one purpose.
    KEY_LANE = "FLU/crypto/key-lane/v1";
    /// Commitment to a lane key, in the segment header.
    KEY_COMMITMENT = "FLU/crypto/key-commitment/v1";
    /// Salted single-use block key.
    KEY_SALTED = "FLU/crypto/key-salted/v1";
    /// Step from a node of the GGM tree to its children.
    GGM = "FLU/crypto/ggm/v1";
    /// Step from one level of mask keys to the next.
    MASK_LEVEL = "FLU/crypto/mask-level/v1";
    /// Chain over the transcript of a key ceremony.
    CEREMONY = "FLU/prover/ceremony/v1";
    /// Randomness and a contributor's text to the secrets of one contribution.
    CEREMONY_SECRET = "FLU/prover/ceremony-secret/v1";
    /// A beacon's last value to its contribution.
    CEREMONY_BEACON = "FLU/prover/ceremony-beacon/v1";
}

#[cfg(test)]
mod tests {
    use super::ALL;

    #[test]
    fn tags_are_unique_and_none_is_a_prefix_of_another() {
        for (i, a) in ALL.iter().enumerate() {
            let parts: Vec<_> = a.split('/').collect();
            assert!(matches!(parts[..], ["FLU", _, _, "v1" | "v2"]), "{a}");
            for (j, b) in ALL.iter().enumerate() {
                assert!(i == j || !b.starts_with(a), "{a} and {b}");
            }
        }
    }
}
