use super::*;
use fluence_crypto::secret::Secret;
use fluence_crypto::sign::NodeKey;
use fluence_crypto::vote::certify;
use fluence_types::block::{BlockHeader, epoch_of};
use fluence_types::limits::EPOCH_BLOCKS;
use fluence_types::{BlockHash, DbRoot};
use std::sync::Mutex;

const DB: DatabaseId = DatabaseId::from_bytes([7; 16]);
const CONFIG: PosterConfig = PosterConfig { every_blocks: 100, turn_blocks: 5 };

fn keys(range: std::ops::Range<u8>) -> Vec<NodeKey> {
    let mut keys: Vec<_> = range.map(|i| NodeKey::new(Secret::new([i; 32]))).collect();
    keys.sort_by_key(NodeKey::id);
    keys
}

fn members(keys: &[NodeKey]) -> Members {
    keys.iter().map(NodeKey::member).collect::<Vec<_>>().try_into().unwrap()
}

fn certificate(height: u64, by: &[NodeKey], next: &[NodeKey]) -> Certificate {
    let header = BlockHeader {
        db: DB,
        consensus_epoch: epoch_of(Height(height)),
        height: Height(height),
        parent: BlockHash::default(),
        timestamp_ms: 0,
        ops_hash: [0; 32],
        executed_height: Height(height - 1),
        executed_root: DbRoot::default(),
        next_members_hash: members_hash(&members(next)).unwrap(),
    };
    certify(header, 3, 2, &members(by), &by.iter().collect::<Vec<_>>()).unwrap()
}

fn anchor(height: u64, accepted_at: u64, by: &[NodeKey]) -> Anchor {
    Anchor { height: Height(height), accepted_at, committee: members_hash(&members(by)).unwrap() }
}

fn showing(now: &[NodeKey], latest: Certificate) -> Showing {
    Showing {
        owner: Address::from_bytes([9; 20]),
        members: members(now),
        latest: Some(latest),
        handovers: Vec::new(),
        committees: vec![members(now)],
    }
}

fn posts(step: &Step) -> Option<u64> {
    match step {
        Step::Post(what) => Some(what.0.header.height.0),
        _ => None,
    }
}

/// The members whose turn it is, by their places.
fn turns(showing: &Showing, anchor: &Anchor, keys: &[NodeKey], head: u64) -> Vec<usize> {
    let turn = |key: &NodeKey| posts(&step(showing, anchor, key.id(), head, CONFIG, &mut None)).is_some();
    (0..keys.len()).filter(|i| turn(&keys[*i])).collect()
}

#[test]
fn members_take_turns_by_the_height_that_the_chain_has_and_the_next_follows_who_is_late() {
    let keys = keys(1..5);
    for height in 1..9 {
        let (showing, anchor) = (showing(&keys, certificate(40, &keys, &keys)), anchor(height, 1000, &keys));
        assert!(turns(&showing, &anchor, &keys, 1099).is_empty(), "too early");
        let place = |after: u64| ((height + after) % 4) as usize;
        assert_eq!(turns(&showing, &anchor, &keys, 1100), [place(0)]);
        let mut two = vec![place(0), place(1)];
        two.sort_unstable();
        assert_eq!(turns(&showing, &anchor, &keys, 1105), two);
        assert_eq!(turns(&showing, &anchor, &keys, 1115).len(), 4);
    }
    // The first certificate of a cluster does not wait.
    let first = anchor(0, 1000, &keys);
    assert_eq!(turns(&showing(&keys, certificate(40, &keys, &keys)), &first, &keys, 1000), [0]);
}

#[test]
fn what_the_chain_has_is_not_posted_and_a_stranger_posts_nothing() {
    let keys = keys(1..5);
    let shown = showing(&keys, certificate(40, &keys, &keys));
    let own = keys[0].id();
    assert_eq!(step(&shown, &anchor(40, 0, &keys), own, 10_000, CONFIG, &mut None), Step::Nothing);
    assert_eq!(step(&shown, &anchor(41, 0, &keys), own, 10_000, CONFIG, &mut None), Step::Nothing);
    let stranger = NodeKey::new(Secret::new([99; 32])).id();
    assert_eq!(step(&shown, &anchor(4, 0, &keys), stranger, 10_000, CONFIG, &mut None), Step::Nothing);
    let nothing = Showing { latest: None, ..shown };
    assert_eq!(step(&nothing, &anchor(4, 0, &keys), own, 10_000, CONFIG, &mut None), Step::Nothing);
}

#[test]
fn changes_of_the_committee_are_posted_at_once_and_in_order() {
    let (a, b, c) = (keys(1..5), keys(2..6), keys(3..7));
    let end = |epoch: u64| (epoch + 1) * EPOCH_BLOCKS - 1;
    let all = Showing {
        handovers: vec![certificate(end(1), &a, &b), certificate(end(4), &b, &c)],
        committees: vec![members(&a), members(&b), members(&c)],
        ..showing(&c, certificate(end(6), &c, &c))
    };
    // A member of all three; others would have their turn some blocks later.
    let own = c[0].id();
    let late = 50;
    let mut seen = None;
    let mut next = |anchor: &Anchor| {
        // Seen first, then waited for.
        let _ = step(&all, anchor, own, 1000, CONFIG, &mut seen);
        posts(&step(&all, anchor, own, 1000 + late, CONFIG, &mut seen))
    };
    assert_eq!(next(&anchor(70, 999, &a)), Some(end(1)));
    assert_eq!(next(&anchor(end(1), 999, &b)), Some(end(4)));
    assert_eq!(next(&anchor(end(1) + 5, 999, &b)), Some(end(4)));
    // All changes are there; the latest is not due yet.
    assert_eq!(next(&anchor(end(4), 999, &c)), None);
    assert_eq!(next(&anchor(end(4), 0, &c)), Some(end(6)));
}

#[test]
fn a_node_that_lacks_a_change_is_stuck_and_says_so() {
    let (a, b) = (keys(1..5), keys(2..6));
    let latest = certificate(300, &b, &b);
    let without = Showing { committees: vec![members(&a), members(&b)], ..showing(&b, latest.clone()) };
    let own = b[0].id();
    assert!(matches!(step(&without, &anchor(70, 0, &a), own, 1000, CONFIG, &mut None), Step::Stuck(_)));
    let stranger = keys(20..24);
    assert!(matches!(step(&without, &anchor(70, 0, &stranger), own, 1000, CONFIG, &mut None), Step::Stuck(_)));
    // What was signed by too few is not sent either.
    let few = Showing { latest: Some(certificate(300, &b[..2], &b)), ..without };
    assert!(matches!(step(&few, &anchor(70, 0, &b), own, 1000, CONFIG, &mut None), Step::Stuck(_)));
}

/// A chain that refuses, and counts.
struct Refusing {
    submitted: Mutex<u32>,
    anchor: Mutex<Option<Anchor>>,
    info: crate::chain::ChainInfo,
}

#[async_trait::async_trait]
impl ClusterChain for Refusing {
    async fn anchor(&self, _: Address, _: DatabaseId) -> Result<Option<Anchor>, ChainError> {
        Ok(*self.anchor.lock().unwrap())
    }
    async fn submit(&self, _: Address, _: &Certificate, _: &Members) -> Result<(), ChainError> {
        *self.submitted.lock().unwrap() += 1;
        Err(ChainError::Rpc("insufficient funds".to_owned()))
    }
    async fn vote_key(&self, _: NodeId) -> Result<Option<[u8; 32]>, ChainError> {
        Ok(None)
    }
    async fn stake(&self, _: NodeId) -> Result<u128, ChainError> {
        Ok(0)
    }
    async fn proven(&self, _: &crate::chain::clusters::Conflict) -> Result<bool, ChainError> {
        Ok(false)
    }
    async fn accuse(&self, _: &crate::chain::clusters::Conflict, _: [u8; 32]) -> Result<(), ChainError> {
        Ok(())
    }
}

#[async_trait::async_trait]
impl Chain for Refusing {
    fn info(&self) -> &crate::chain::ChainInfo {
        &self.info
    }
    fn clusters(&self) -> Option<&dyn ClusterChain> {
        Some(self)
    }
    fn operator(&self) -> Option<Address> {
        Some(Address::default())
    }
    async fn head(&self) -> Result<u64, ChainError> {
        Ok(0)
    }
    async fn beacon(&self, _: fluence_types::Epoch) -> Result<Option<[u8; 32]>, ChainError> {
        Ok(None)
    }
    async fn debt(&self, _: NodeId, _: fluence_types::Epoch) -> Result<Option<crate::chain::Debt>, ChainError> {
        Ok(None)
    }
    async fn nodes(&self) -> Result<Vec<crate::chain::RegisteredNode>, ChainError> {
        Ok(Vec::new())
    }
    async fn challenges(&self, _: NodeId, _: u64) -> Result<Vec<crate::chain::Challenge>, ChainError> {
        Ok(Vec::new())
    }
    async fn challenge_of(&self, _: crate::chain::Subject) -> Result<Option<crate::chain::Challenge>, ChainError> {
        Ok(None)
    }
    async fn challenge(&self, _: crate::chain::Subject, _: [u8; 32]) -> Result<(), ChainError> {
        Ok(())
    }
    async fn respond(&self, _: crate::chain::ChallengeId, _: &[u8; 512]) -> Result<(), ChainError> {
        Ok(())
    }
    async fn expire(&self, _: crate::chain::ChallengeId) -> Result<u128, ChainError> {
        Ok(0)
    }
    async fn claim_bond(&self, _: crate::chain::ChallengeId) -> Result<(), ChainError> {
        Ok(())
    }
}

struct One(Showing);

impl Shows for One {
    fn databases(&self) -> Vec<DatabaseId> {
        vec![DB]
    }
    fn showing(&self, _: DatabaseId) -> Option<Showing> {
        Some(self.0.clone())
    }
}

#[tokio::test]
async fn what_is_refused_is_tried_ever_later_and_not_for_ever() {
    let keys = keys(1..5);
    let info = crate::chain::ChainInfo {
        chain_id: 31337,
        contract: Address::default(),
        start_block: 0,
        epoch_blocks: 10,
        window_blocks: 40,
        response_blocks: 5,
        proofs_per_epoch: 1,
        shape: fluence_types::shape::StorageShape::TINY,
        storage_vk_hash: [0; 32],
        insecure_dev_keys: true,
    };
    let chain = Arc::new(Refusing { submitted: Mutex::default(), anchor: Mutex::new(Some(anchor(4, 0, &keys))), info });
    let shows = Arc::new(One(showing(&keys, certificate(40, &keys, &keys))));
    let mut poster = Poster::new(keys[0].id(), Arc::clone(&chain) as Arc<dyn Chain>, shows, CONFIG);
    let mut tried_in = Vec::new();
    for head in 100..2000 {
        let before = *chain.submitted.lock().unwrap();
        poster.round(head).await.unwrap();
        if *chain.submitted.lock().unwrap() > before {
            tried_in.push(head);
        }
    }
    assert_eq!(tried_in, [100, 110, 130, 170, 250], "five times, ever later");
    // Another member brought the chain on: at the next height it is tried again.
    *chain.anchor.lock().unwrap() = Some(anchor(8, 1900, &keys));
    poster.round(2100).await.unwrap();
    assert_eq!(*chain.submitted.lock().unwrap(), 6);
}
