//! Members by the draw of `Placement`: asked for on chain, waited for, computed here, settled, and compared.
//!
//! ```text
//! id kept in config.toml -> request -> the seed's block -> list and seed -> draw computed here = what the contract keeps -> addresses
//! ```
//! Rule    an id is drawn for once: what was interrupted goes on with the id it has. Where the contract keeps another order than the one
//!         computed here, nothing is made.

use crate::error::{Context, Failure, Kind, Result};
use crate::home::Home;
use crate::output::{Out, short};
use crate::remote::node_of;
use fluence_bindings::{Candidate, Chain, PlacementRequest};
use fluence_client::dial::peer_id;
use fluence_crypto::placement::{self, PlacementSeed};
use fluence_types::{Address, DatabaseId, NodeId};
use rand::RngCore;
use rand::rngs::OsRng;
use std::time::{Duration, Instant};

/// Between two looks for the seed's block.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// What is asked for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wanted {
    pub(super) seats: u8,
    pub(super) standbys: u8,
    /// Longest wait for the seed.
    pub(super) patience: Duration,
}

/// A node as drawn, with its registered address.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub(super) struct Drawn {
    pub(super) node: NodeId,
    pub(super) address: String,
}

/// What came of a draw.
#[derive(Debug)]
pub(super) struct Draw {
    pub(super) db: DatabaseId,
    pub(super) request: PlacementRequest,
    /// The seats first.
    pub(super) order: Vec<Drawn>,
    /// Draws that the owner ever asked for.
    pub(super) requests: u64,
}

/// Draws the members of database `name`, or goes on where an earlier command ended.
pub(super) async fn run(
    chain: &Chain,
    owner: Address,
    name: &str,
    wanted: Wanted,
    home: &Home,
    out: &Out,
) -> Result<Draw> {
    let db = id_of(name, home)?;
    let request = request(chain, owner, &db, wanted, out).await?;
    await_seed(chain, &request, wanted.patience, out).await?;
    let (request, order) = settle(chain, owner, &db, request).await?;
    let mut drawn = Vec::with_capacity(order.len());
    for node in order {
        let record = chain.node(&node).await.doing("the chain does not say where a drawn node is")?;
        let multiaddr = record.map(|r| r.multiaddr).unwrap_or_default();
        drawn.push(Drawn { node, address: address_of(&node, &multiaddr)? });
    }
    let requests = chain.placement_requests(&owner).await.doing("the chain does not answer")?;
    Ok(Draw { db, request, order: drawn, requests })
}

/// The id that is drawn for: kept before anything is sent.
fn id_of(name: &str, home: &Home) -> Result<DatabaseId> {
    let mut config = home.config()?;
    let entry = config.databases.entry(name.to_owned()).or_default();
    if let Some(id) = entry.draw {
        return Ok(id);
    }
    let mut bytes = [0; 16];
    OsRng.fill_bytes(&mut bytes);
    let id = DatabaseId::from_bytes(bytes);
    entry.draw = Some(id);
    home.save(&config)?;
    Ok(id)
}

async fn request(
    chain: &Chain,
    owner: Address,
    db: &DatabaseId,
    wanted: Wanted,
    out: &Out,
) -> Result<PlacementRequest> {
    let known =
        || async { chain.placement_request(&owner, db).await.doing("the chain does not say what was asked for") };
    if let Some(made) = known().await? {
        if (made.seats, made.standbys) != (usize::from(wanted.seats), usize::from(wanted.standbys)) {
            let had = format!("{} seats and {} standbys were asked for", made.seats, made.standbys);
            return Err(Failure::usage(format!("{had} for database {db} already"))
                .help("ask for the same; or give up that draw: remove its `draw` from config.toml"));
        }
        out.note(format!("going on with the draw that was asked for in block {}", made.requested_at));
        return Ok(made);
    }
    match chain.request_placement(db, wanted.seats, wanted.standbys).await {
        Ok(sent) => out.note(format!("asked for {} seats in block {}, {} gas", wanted.seats, sent.block, sent.gas)),
        Err(e) => {
            let help = match e.refusal() {
                Some("TooFewOperators") => {
                    "too few operators offer nodes on this chain: ask for fewer seats, or name nodes with --node"
                }
                Some(_) => "docs/protocol/chain.md says what each refusal means",
                None => {
                    "the owner's account pays for this: does it have ether on this chain? `fluence keys` shows its address"
                }
            };
            return Err(Failure::failed("no draw was asked for").because(e).help(help));
        }
    }
    known()
        .await?
        .ok_or_else(|| Failure::failed("the chain does not know the request that it accepted").help("run it again"))
}

/// Waits until the block whose hash is the seed has a successor.
async fn await_seed(chain: &Chain, request: &PlacementRequest, patience: Duration, out: &Out) -> Result<()> {
    let seed = request.seed_block;
    let total = seed.saturating_sub(request.requested_at) + 1;
    let bar = out.progress("waiting for the block that draws", "blocks", total);
    let begun = Instant::now();
    loop {
        let head = chain.connection().block_number().await.doing("the chain does not answer")?;
        if head > seed {
            bar.done();
            return Ok(());
        }
        bar.set(head.saturating_sub(request.requested_at), total);
        if begun.elapsed() > patience {
            bar.done();
            return Err(Failure::failed(format!("block {} did not come within {} s; the chain is at {head}", seed + 1, patience.as_secs()))
                .help("run the same command again later: it goes on with this draw. The seed is lost about 8,000 blocks after it was named"));
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// Has the draw kept on chain, unless somebody did, and compares it with the one computed here.
async fn settle(
    chain: &Chain,
    owner: Address,
    db: &DatabaseId,
    request: PlacementRequest,
) -> Result<(PlacementRequest, Vec<NodeId>)> {
    if request.settled_at.is_none() {
        match chain.settle_placement(&owner, db).await {
            // Somebody else may: it is the same draw.
            Err(e) if e.refusal() == Some("AlreadySettled") => {}
            Err(e) => {
                let help = match e.refusal() {
                    Some("SeedLost") => {
                        "nobody settled in time, and an id is drawn for once: remove its `draw` from config.toml, and ask anew"
                    }
                    Some("TooFewOperators") => {
                        "nodes left the list since the request, or lost their collateral: wait for them to come back, or give up this draw"
                    }
                    _ => "run it again: it goes on with this draw",
                };
                return Err(Failure::failed("the draw was not settled").because(e).help(help));
            }
            Ok(_) => {}
        }
    }
    let settled = chain.placement_request(&owner, db).await.doing("the chain does not say what was drawn")?;
    let settled = settled.filter(|r| r.settled_at.is_some());
    let settled = settled.ok_or_else(|| Failure::failed("the chain does not know the draw that it settled"))?;
    let (_, order) = chain.placement_preview(&owner, db).await.doing("the chain does not say what was drawn")?;
    check(chain, owner, db, &settled, &order).await?;
    Ok((settled, order))
}

/// Computes the draw from the list and the seed's block. Where the chain still has both and they make another draw, it lies.
async fn check(
    chain: &Chain,
    owner: Address,
    db: &DatabaseId,
    request: &PlacementRequest,
    order: &[NodeId],
) -> Result<()> {
    let refused = |what: String| {
        Failure::new(Kind::Refused, what)
            .help("the chain's node that was asked, or the contract, is not to be trusted: nothing was made")
    };
    let beacon = chain.block_hash(request.seed_block).await.doing("the chain does not answer")?;
    let beacon = beacon.ok_or_else(|| refused(format!("block {} is not there any more", request.seed_block)))?;
    let deployment = chain.deployment();
    let seed = placement::seed(&PlacementSeed {
        chain_id: deployment.chain_id,
        contract: deployment.placement,
        owner,
        db: *db,
        beacon,
    });
    if seed != request.seed {
        return Err(refused(format!("the seed of the draw is not that of block {}", request.seed_block)));
    }
    let settled_at = request.settled_at.unwrap_or_default();
    // Before it, and with it: what operators did in the same block came before or after.
    let mut made = Vec::new();
    for at in [settled_at, settled_at.saturating_sub(1)] {
        let list = chain.placement_candidates(request, at).await.doing("the chain does not say who could be drawn")?;
        made = compute(&seed, &list, request.seats + request.standbys);
        if made == order {
            return Ok(());
        }
    }
    Err(refused(format!("the chain keeps a draw of {}, the list and the seed make {}", names(order), names(&made))))
}

/// The draw from a list.
fn compute(seed: &[u8; 32], list: &[Candidate], want: usize) -> Vec<NodeId> {
    let operators: Vec<_> = list.iter().map(|c| c.operator).collect();
    placement::draw(seed, &operators, want).into_iter().map(|slot| list[slot].node).collect()
}

fn names(nodes: &[NodeId]) -> String {
    nodes.iter().map(short).collect::<Vec<_>>().join(", ")
}

/// A registered address with the node's peer id.
fn address_of(node: &NodeId, multiaddr: &[u8]) -> Result<String> {
    let bad = |why: &str| {
        Failure::failed(format!("the registered address of node {node} cannot be used: {why}"))
            .help("its operator corrects it with `fluence operator join --address`; with --skip-silent the next of the draw takes its place")
    };
    let text = std::str::from_utf8(multiaddr).map_err(|_| bad("it is no text"))?;
    if !text.starts_with('/') {
        return Err(bad("it does not begin with /"));
    }
    let peer = peer_id(node).map_err(|_| bad("the node's id is no Ed25519 key"))?;
    match node_of(text) {
        Some(named) if named == *node => Ok(text.to_owned()),
        Some(_) => Err(bad("it names another node")),
        None if text.contains("/p2p/") => Err(bad("its peer id is malformed")),
        None => Ok(format!("{text}/p2p/{peer}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use fluence_crypto::secret::Secret;
    use fluence_crypto::sign::NodeKey;

    #[test]
    fn registered_addresses_must_be_texts_that_name_their_node_or_none() {
        let node = NodeKey::new(Secret::new([1; 32])).id();
        let other = peer_id(&NodeKey::new(Secret::new([2; 32])).id()).unwrap();
        let own = format!("/ip4/127.0.0.1/tcp/1/p2p/{}", peer_id(&node).unwrap());
        assert_eq!(address_of(&node, own.as_bytes()).unwrap(), own);
        assert_eq!(address_of(&node, b"/ip4/127.0.0.1/tcp/1").unwrap(), own);
        for bad in [
            &b""[..],
            b"x",
            b"\xff",
            b"/ip4/127.0.0.1/tcp/1/p2p/x",
            format!("/ip4/1.2.3.4/tcp/1/p2p/{other}").as_bytes(),
        ] {
            assert!(address_of(&node, bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_draw_names_the_nodes_of_its_slots_and_passes_over_who_does_not_count() {
        let slot = |i: u8, operator: Option<u8>| Candidate {
            node: NodeId::from_bytes([i; 32]),
            operator: operator.map(|o| Address::from_bytes([o; 20])),
        };
        let list = [slot(1, Some(1)), slot(0, None), slot(2, Some(1)), slot(3, None), slot(4, Some(4))];
        let drawn = compute(&[7; 32], &list, 5);
        assert_eq!(drawn.len(), 2);
        assert!(drawn.contains(&NodeId::from_bytes([4; 32])));
        assert!(drawn.iter().all(|n| [1, 2, 4].contains(&n.to_bytes()[0])));
    }

    #[test]
    fn an_id_is_chosen_once_for_a_name_and_kept() {
        let dir = tempfile::tempdir().unwrap();
        let home = Home::locate(Some(dir.path())).unwrap();
        home.create().unwrap();
        let id = id_of("main", &home).unwrap();
        assert_eq!(id_of("main", &home).unwrap(), id);
        assert_ne!(id_of("other", &home).unwrap(), id);
    }
}
