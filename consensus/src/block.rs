//! A block as the consensus library carries it: its canonical bytes, kept beside it, under its Keccak-256 header hash.

use bytes::{BufMut, Bytes};
use commonware_codec::{Buf, EncodeSize, Error, Read, ReadExt, Write};
use commonware_consensus::types::Height as ConsensusHeight;
use commonware_consensus::{BoundedBlock, Heightable};
use commonware_cryptography::Digestible;
use fluence_crypto::sign::{block_hash, ops_hash};
use fluence_types::block::{Block, BlockHeader};
use fluence_types::limits::BLOCK_BYTES_MAX;
use fluence_types::{BlockHash, codec};
use std::sync::Arc;

/// A block hash where the library wants a digest: 32 bytes, whatever made them.
pub type BlockDigest = commonware_cryptography::sha256::Digest;

/// Most bytes of a message between replicas: a block with its certificate.
pub const MESSAGE_BYTES_MAX: usize = BLOCK_BYTES_MAX + (64 << 10);

/// A block with its canonical bytes and hash. One that was read from bytes has the operations of its header: so no two differ that have one
/// hash, and who passes a block on cannot put others in the place of its operations. More is not checked.
#[derive(Clone, Debug)]
pub struct ClusterBlock {
    block: Arc<Block>,
    bytes: Bytes,
    hash: BlockHash,
}

impl ClusterBlock {
    /// Wraps a block.
    #[must_use]
    pub fn new(block: Block) -> Self {
        let bytes = Bytes::from(codec::encode(&block));
        Self { hash: block_hash(&block.header), block: Arc::new(block), bytes }
    }

    /// The block.
    #[must_use]
    pub fn block(&self) -> &Block {
        &self.block
    }

    /// Its header.
    #[must_use]
    pub fn header(&self) -> &BlockHeader {
        &self.block.header
    }

    /// Its hash.
    #[must_use]
    pub const fn hash(&self) -> BlockHash {
        self.hash
    }

    /// Bytes of its canonical encoding.
    #[must_use]
    pub fn size(&self) -> usize {
        self.bytes.len()
    }
}

pub(crate) fn digest(hash: &BlockHash) -> BlockDigest {
    commonware_cryptography::sha256::Digest(hash.to_bytes())
}

impl Write for ClusterBlock {
    fn write(&self, buf: &mut impl BufMut) {
        buf.put_u32(u32::try_from(self.bytes.len()).expect("a block is below 2^32 bytes"));
        buf.put_slice(&self.bytes);
    }
}

impl EncodeSize for ClusterBlock {
    fn encode_size(&self) -> usize {
        4 + self.bytes.len()
    }
}

impl Read for ClusterBlock {
    type Cfg = ();

    fn read_cfg(buf: &mut impl Buf, (): &()) -> Result<Self, Error> {
        let len = u32::read(buf)? as usize;
        if len > BLOCK_BYTES_MAX {
            return Err(Error::InvalidLength(len));
        }
        if buf.remaining() < len {
            return Err(Error::EndOfBuffer);
        }
        let bytes = buf.copy_to_bytes(len);
        let block: Block = codec::decode("block", &bytes, BLOCK_BYTES_MAX)
            .map_err(|_| Error::Invalid("block", "not the canonical encoding of one"))?;
        if ops_hash(&block.ops) != block.header.ops_hash {
            return Err(Error::Invalid("block", "its operations are not those of its header"));
        }
        Ok(Self { hash: block_hash(&block.header), block: Arc::new(block), bytes })
    }
}

impl Digestible for ClusterBlock {
    type Digest = BlockDigest;

    fn digest(&self) -> BlockDigest {
        digest(&self.hash)
    }
}

impl Heightable for ClusterBlock {
    fn height(&self) -> ConsensusHeight {
        ConsensusHeight::new(self.block.header.height.0)
    }
}

impl commonware_consensus::Block for ClusterBlock {
    fn parent(&self) -> BlockDigest {
        digest(&self.block.header.parent)
    }
}

impl BoundedBlock for ClusterBlock {
    fn max_encode_size((): &()) -> usize {
        4 + BLOCK_BYTES_MAX
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use commonware_codec::{DecodeExt, Encode};
    use fluence_engine::testkit::{TestDb, define, schema};

    #[test]
    fn one_hash_has_one_block_however_it_travels() {
        let mut db = TestDb::new(1, 4);
        let ops = (0..2).map(|at| db.owner.sign(db.db, define(at, schema(1, 0)))).collect();
        let block = db.block(ops);
        let whole = ClusterBlock::new(block.clone());
        let read = ClusterBlock::decode(whole.encode()).expect("it is right");
        assert_eq!((read.hash(), read.block()), (whole.hash(), &block));

        let spoils: [fn(&mut Vec<fluence_types::op::SignedOp>); 5] = [
            |ops| ops[1].signature[0] ^= 1,
            |ops| ops[0].unsigned.sequence += 1,
            |ops| ops.swap(0, 1),
            |ops| _ = ops.pop(),
            |ops| ops.push(ops[0].clone()),
        ];
        for (at, spoil) in spoils.iter().enumerate() {
            let mut ops = block.ops.to_vec();
            spoil(&mut ops);
            let other = Block { header: block.header.clone(), ops: ops.try_into().expect("few") };
            assert!(ClusterBlock::decode(ClusterBlock::new(other).encode()).is_err(), "spoiled as {at}");
        }
    }
}
