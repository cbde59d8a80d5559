//! `fluence operator`: a node on chain, by its operator: registered with its vote key, staked, on the list that members are drawn from.
//!
//! Rule    each step is looked up first and done only where it is missing, so the command may be repeated after a failure.

use crate::args::{Operator, OperatorJoin, OperatorPlace};
use crate::error::{Context, Failure, Help, Result};
use crate::output::Out;
use fluence_bindings::{Chain, ChainError, Connection, Deployment, NodeRecord, NodeStatus, Sent};
use fluence_client::dial::peer_id;
use fluence_crypto::sign::NodeKey;
use fluence_crypto::vote::{signature_eip2537, vote_key_eip2537};
use fluence_node::config::StorageConfig;
use fluence_node::{Config, identity};
use fluence_types::NodeId;
use serde_json::{Value, json};

const FLU: u128 = 1_000_000_000_000_000_000;
const IN_CONFIG: &str = "the node's configuration must have a [chain] table: rpc_url, deployment and operator_key";

/// A node, and its operator's account.
struct Seat {
    key: NodeKey,
    chain: Chain,
}

pub(crate) async fn run(command: &Operator, out: &Out) -> Result<()> {
    match command {
        Operator::Join(args) => join(args, out).await,
        Operator::Leave(place) => leave(place, out).await,
        Operator::Status(place) => status(&Seat::open(place).await?, json!([]), out).await,
    }
}

impl Seat {
    async fn open(place: &OperatorPlace) -> Result<Self> {
        let config = StorageConfig::load(Some(&place.config), &[]).usage("the configuration cannot be used")?;
        let path = config.identity.clone().unwrap_or_else(|| config.data_dir.join("identity.key"));
        let secret = identity::load_secret(&path)
            .doing("the node's identity cannot be read")
            .or_help("start the node once: it makes its key")?;
        let no_chain = || Failure::usage("the node has no chain or no operator's key").help(IN_CONFIG);
        let chain = config.chain.ok_or_else(no_chain)?;
        let operator = chain.operator_key.as_ref().ok_or_else(no_chain)?;
        let operator = identity::load_secret(operator).doing("the operator's key cannot be read")?;
        let connection = operator.expose(|key| Connection::new(&chain.rpc_url.0, Some(key)));
        let connection = connection.usage("the chain cannot be used").or_help(IN_CONFIG)?;
        let deployment = Deployment::read(&chain.deployment).usage("the deployment cannot be used")?;
        let chain = Chain::open(connection, deployment).await.doing("the chain cannot be used").or_help(IN_CONFIG)?;
        Ok(Self { key: NodeKey::new(secret), chain })
    }

    fn id(&self) -> NodeId {
        self.key.id()
    }

    async fn record(&self) -> Result<Option<NodeRecord>> {
        self.chain.node(&self.id()).await.doing("the chain does not answer")
    }

    fn operator(&self) -> fluence_types::Address {
        self.chain.connection().account().unwrap_or_default()
    }
}

async fn join(args: &OperatorJoin, out: &Out) -> Result<()> {
    let seat = Seat::open(&args.place).await?;
    let address = args.address.as_deref().map(|a| whole(&seat.id(), a)).transpose()?;
    let mut done = Vec::new();
    let mut did = |what: &str, sent: Result<Sent, ChainError>| {
        let sent = sent.map_err(|e| refused(what, &e))?;
        out.note(format!("{what}: {} gas in block {}", sent.gas, sent.block));
        done.push(json!({ "act": what, "transaction": sent }));
        Ok::<_, Failure>(())
    };
    let (id, chain) = (seat.id(), &seat.chain);
    match (seat.record().await?, &address) {
        (Some(record), _) if record.operator != seat.operator() => {
            return Err(Failure::failed(format!("node {id} is registered by another operator, {}", record.operator))
                .help("use that operator's key, or give the node another identity"));
        }
        (Some(record), _) if record.status == NodeStatus::Left => {
            return Err(Failure::failed(format!("node {id} has left for good")).help("give the node another identity"));
        }
        (None, None) => {
            return Err(Failure::usage("the node is not registered, and no address is given")
                .help("--address /ip4/203.0.113.7/tcp/4401: where it is reached from outside"));
        }
        (None, Some(address)) => did("register", chain.register_node(&id, address.as_bytes()).await)?,
        (Some(record), Some(address)) if record.multiaddr != address.as_bytes() => {
            did("move", chain.move_node(&id, address.as_bytes()).await)?;
        }
        _ => {}
    }
    if chain.vote_key(&id).await.doing("the chain does not answer")?.is_none() {
        let member = seat.key.member();
        let key = vote_key_eip2537(&member).doing("the node's vote key is malformed")?;
        let possession = signature_eip2537(&member.possession).doing("the node's vote key is malformed")?;
        did("register the vote key", chain.register_vote_key(&id, &key, &possession).await)?;
    }
    if args.deposit > 0 {
        did("deposit", chain.deposit(&id, u128::from(args.deposit) * FLU).await)?;
    }
    if !args.no_announce && !chain.is_announced(&id).await.doing("the chain does not answer")? {
        did("announce", chain.announce_node(&id).await)?;
    }
    status(&seat, json!(done), out).await
}

async fn leave(place: &OperatorPlace, out: &Out) -> Result<()> {
    let seat = Seat::open(place).await?;
    let sent = seat.chain.withdraw_node(&seat.id()).await.map_err(|e| refused("leave", &e))?;
    status(&seat, json!([{ "act": "leave", "transaction": sent }]), out).await
}

async fn status(seat: &Seat, done: Value, out: &Out) -> Result<()> {
    let chain = &seat.chain;
    let record = seat.record().await?;
    let collateral = chain.collateral(&seat.id()).await.doing("the chain does not answer")?;
    let vote_key = chain.vote_key(&seat.id()).await.doing("the chain does not answer")?;
    let announced = chain.is_announced(&seat.id()).await.doing("the chain does not answer")?;
    let address = record.as_ref().map(|r| String::from_utf8_lossy(&r.multiaddr).into_owned());
    // Base units as text: more than a JSON number holds.
    let staked = json!({
        "free": collateral.free.to_string(), "locked": collateral.locked.to_string(), "thawing": collateral.thawing.to_string(),
        "thawed_at": collateral.thawed_at,
    });
    let value = json!({
        "node": seat.id(), "operator": seat.operator(), "status": record.as_ref().map_or(NodeStatus::None, |r| r.status),
        "address": address, "vote_key": vote_key.map(hex::encode), "collateral": staked, "announced": announced, "done": done,
    });
    out.result(&value, |out| {
        out.line(format!("node       {}", seat.id()));
        out.line(format!("operator   {}", seat.operator()));
        let state = value["status"].as_str().unwrap_or_default();
        out.line(format!(
            "status     {state}, {}",
            if announced { "offered to owners" } else { "not offered to owners" }
        ));
        out.line(format!("address    {}", address.as_deref().unwrap_or("none")));
        out.line(format!("vote key   {}", if vote_key.is_some() { "registered" } else { "none" }));
        let flu = |amount: u128| amount / FLU; // rounds down
        out.line(format!(
            "FLU        {} free, {} locked, {} thawing",
            flu(collateral.free),
            flu(collateral.locked),
            flu(collateral.thawing)
        ));
    });
    Ok(())
}

fn refused(what: &str, error: &ChainError) -> Failure {
    let help = match error.refusal() {
        Some("CollateralMissing") => "a node that is offered needs free collateral: --deposit FLU",
        Some("ERC20InsufficientBalance") => "the operator's account does not hold that much FLU",
        Some("NodeNotActive") => "the node missed a challenge or voted twice: it must restake first",
        Some("NotAnnounced") => "it is not on the list",
        Some(_) => "docs/protocol/chain.md says what each refusal means",
        None => "the operator's account pays for this: does it have ether on this chain?",
    };
    Failure::failed(format!("{what}: not done")).because(error).help(help)
}

/// The address with the node's own peer id, so that nobody else answers for it there.
fn whole(node: &NodeId, address: &str) -> Result<String> {
    let peer = peer_id(node).usage("the node's identity is no Ed25519 key")?;
    let help = "as /ip4/203.0.113.7/tcp/4401 or /dns4/node.example/tcp/4401";
    if !address.starts_with('/') {
        return Err(Failure::usage(format!("{address:?} is not an address")).help(help));
    }
    match address.split_once("/p2p/") {
        None => Ok(format!("{address}/p2p/{peer}")),
        Some((_, named)) if named == peer.to_string() => Ok(address.to_owned()),
        Some(_) => Err(Failure::usage(format!("{address} names another node; this one is {peer}")).help(help)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use fluence_crypto::secret::Secret;

    #[test]
    fn addresses_get_the_nodes_peer_id_and_keep_no_other() {
        let node = NodeKey::new(Secret::new([1; 32])).id();
        let peer = peer_id(&node).unwrap().to_string();
        let other = peer_id(&NodeKey::new(Secret::new([2; 32])).id()).unwrap();
        let full = format!("/dns4/a.example/tcp/1/p2p/{peer}");
        assert_eq!(whole(&node, "/dns4/a.example/tcp/1").unwrap(), full);
        assert_eq!(whole(&node, &full).unwrap(), full);
        assert!(whole(&node, "a.example:1").is_err());
        assert!(whole(&node, &format!("/ip4/1.2.3.4/tcp/1/p2p/{other}")).is_err());
    }
}
