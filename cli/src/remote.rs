//! Reaching the owner's databases: keystore, addresses, session.

use crate::args::{Place, Unlock};
use crate::commands::keys;
use crate::error::{Context, Failure, Kind, Result};
use crate::home::Home;
use crate::output::Out;
use fluence_client::dial::{DialOptions, Dialer};
use fluence_client::{ClientError, Database, Session};
use fluence_types::answer::OpenRefusal;
use fluence_types::{DatabaseId, NodeId};
use fluence_wire::message::Refusal;
use rand::SeedableRng;
use rand::rngs::{OsRng, StdRng};

/// An unlocked keystore and a way to the node that `--node` or the configuration names.
pub(crate) struct Remote {
    session: Session<Dialer>,
    node: NodeId,
    address: String,
}

impl Remote {
    /// Unlocks, and starts a dialer. `remember`: a node given by `--node` goes into the configuration.
    pub(crate) async fn open(home: &Home, place: &Place, unlock: &Unlock, remember: bool) -> Result<Self> {
        let mut config = home.config()?;
        let known = config.databases.get(&place.db).and_then(|d| d.node.clone());
        let address = place.node.clone().or(known.clone()).ok_or_else(|| {
            Failure::usage(format!("no node is known for database {:?}", place.db))
                .help("name it once: --node /ip4/127.0.0.1/tcp/4401/p2p/12D3KooW..")
        })?;
        let node = check_address(&address)?;
        let keystore = keys::open(home, unlock)?;
        if remember && known.as_ref() != Some(&address) {
            config.databases.entry(place.db.clone()).or_default().node = Some(address.clone());
            home.save(&config)?;
        }
        let dialer = Dialer::start(DialOptions::default()).doing("cannot start the network")?;
        dialer.add_address(&node, &address).usage(format!("{address} cannot be used"))?;
        for (id, known) in
            keystore.state.databases.values().flat_map(|d| d.addresses.iter().map(|a| (a.0, a.1.clone())))
        {
            // Old addresses of other members: one that is malformed by now only is no help.
            let _ = dialer.add_address(&id, &known);
        }
        let rng = StdRng::from_rng(OsRng).doing("the system gives no randomness")?;
        Ok(Self { session: Session::new(dialer, keystore, rng), node, address })
    }

    /// The database that `--db` names: from the configuration, else found on the node.
    pub(crate) async fn database(&self, home: &Home, place: &Place) -> Result<Database<Dialer>> {
        if let Some(database) = self.find(home, place).await? {
            return Ok(database);
        }
        Err(Failure::failed(format!("node {} keeps no database of this owner that is {:?} here", self.node, place.db))
            .help("`fluence import` makes it; or name another node with --node, another database with --db"))
    }

    /// The same, made if there is none.
    pub(crate) async fn database_or_new(&self, home: &Home, place: &Place, out: &Out) -> Result<Database<Dialer>> {
        if let Some(database) = self.find(home, place).await? {
            return Ok(database);
        }
        let addresses = vec![(self.node, self.address.clone())];
        let made = self.session.create_database(&place.db, vec![self.node], addresses).await;
        let database = made.map_err(|e| failure(e, "cannot make the database"))?;
        out.note(format!("database {:?} made: {}", place.db, database.id()));
        self.keep(home, place, database.id())?;
        Ok(database)
    }

    async fn find(&self, home: &Home, place: &Place) -> Result<Option<Database<Dialer>>> {
        let config = home.config()?;
        if let Some(id) = config.databases.get(&place.db).and_then(|d| d.id) {
            if let Ok(database) = self.session.database(id) {
                return Ok(Some(database));
            }
            // A restored keystore: the network brings the state back.
            self.recover().await?;
            return self
                .session
                .database(id)
                .map(Some)
                .map_err(|e| failure(e, "the configuration names a database that is gone"));
        }
        let by_label = self.session.known().into_iter().find(|(_, d)| d.label == place.db).map(|(id, _)| id);
        let id = match by_label {
            Some(id) => Some(id),
            None => {
                let others: Vec<DatabaseId> = config.databases.values().filter_map(|d| d.id).collect();
                let found: Vec<DatabaseId> =
                    self.recover().await?.into_iter().filter(|id| !others.contains(id)).collect();
                match found[..] {
                    [] => None,
                    [one] => Some(one),
                    _ => {
                        let list = found.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
                        return Err(Failure::usage(format!(
                            "node {} keeps {} databases of this owner",
                            self.node,
                            found.len()
                        ))
                        .because(list)
                        .help(format!("write the one you mean into config.toml, as databases.{}.id", place.db)));
                    }
                }
            }
        };
        let Some(id) = id else { return Ok(None) };
        self.keep(home, place, id)?;
        self.session.database(id).map(Some).map_err(|e| failure(e, "cannot open the database"))
    }

    async fn recover(&self) -> Result<Vec<DatabaseId>> {
        self.session
            .recover(&[(self.node, self.address.clone())])
            .await
            .map_err(|e| failure(e, "cannot look for databases of this owner"))
    }

    fn keep(&self, home: &Home, place: &Place, id: DatabaseId) -> Result<()> {
        let mut config = home.config()?;
        config.databases.entry(place.db.clone()).or_default().id = Some(id);
        home.save(&config)
    }
}

/// A client's error as a failure: refused answers are exit code 3.
pub(crate) fn failure(error: ClientError, what: &str) -> Failure {
    let (kind, help) = match &error {
        ClientError::Answer { .. }
        | ClientError::Page { .. }
        | ClientError::Proof { .. }
        | ClientError::Signature { .. } => {
            (Kind::Refused, "the node's answer was not believed, and nothing of it was used; ask another member")
        }
        ClientError::Refused { refusal: Refusal::Open(OpenRefusal::Lost { .. }), .. } => {
            (Kind::Failed, "the node lost data and says so; another member may have it")
        }
        ClientError::Refused { .. } | ClientError::Op(_) => (Kind::Failed, "the node says why above"),
        ClientError::Transport(_) => {
            (Kind::Failed, "is the node running, and is its address right? `fluence doctor` asks it")
        }
        ClientError::UnknownTable(_) => (Kind::Failed, "`fluence import FILE --table NAME --key COLS` makes it"),
        ClientError::Schema(_) | ClientError::Aggregate { .. } => (
            Kind::Usage,
            "sums are declared when the table is made: `fluence import .. --sum`; variances need the square, as x*x",
        ),
        ClientError::Plan(_) => (Kind::Usage, "ask for a smaller range or fewer columns"),
        ClientError::Csv(_) | ClientError::Source(_) | ClientError::Seal(_) => {
            (Kind::Failed, "correct the file, or the types with --types and --null; nothing was stored")
        }
        _ => (Kind::Failed, "run it again; `fluence doctor` looks for the usual causes"),
    };
    Failure::new(kind, what).because(error).help(help)
}

/// The node that an address names in its last part.
pub(crate) fn check_address(address: &str) -> Result<NodeId> {
    node_of(address).ok_or_else(|| {
        Failure::usage(format!("{address:?} is not the address of a node")).help(
            "as /ip4/127.0.0.1/tcp/4401/p2p/12D3KooW..: the node prints it, and writes it to run.json in its folder",
        )
    })
}

/// The Ed25519 key inside a peer id: base58 of the identity multihash of a protobuf key.
fn node_of(address: &str) -> Option<NodeId> {
    const HEAD: [u8; 6] = [0x00, 0x24, 0x08, 0x01, 0x12, 0x20];
    let (host, peer) = address.rsplit_once("/p2p/")?;
    if !host.starts_with('/') || peer.len() > 64 {
        return None;
    }
    let bytes = base58(peer)?;
    let key = bytes.strip_prefix(&HEAD)?;
    let node = NodeId::from_bytes(key.try_into().ok()?);
    // Text and key must name each other: one spelling a node.
    fluence_client::dial::peer_id(&node).is_ok_and(|p| p.to_string() == peer).then_some(node)
}

/// Base58 with Bitcoin's alphabet, as libp2p writes peer ids.
fn base58(text: &str) -> Option<Vec<u8>> {
    const ALPHABET: &[u8] = b"123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz";
    let mut bytes: Vec<u8> = Vec::new(); // little-endian
    for c in text.bytes() {
        let mut carry = ALPHABET.iter().position(|a| *a == c)?;
        for byte in &mut bytes {
            carry += usize::from(*byte) * 58;
            *byte = (carry & 0xff) as u8;
            carry >>= 8;
        }
        while carry > 0 {
            bytes.push((carry & 0xff) as u8);
            carry >>= 8;
        }
    }
    bytes.extend(text.bytes().take_while(|c| *c == b'1').map(|_| 0));
    bytes.reverse();
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_name_their_node_and_others_are_refused() {
        let node = fluence_crypto::sign::NodeKey::new(fluence_crypto::secret::Secret::fill(|b| b[0] = 7)).id();
        let peer = fluence_client::dial::peer_id(&node).unwrap();
        assert_eq!(check_address(&format!("/ip4/127.0.0.1/tcp/1/p2p/{peer}")).unwrap(), node);
        for bad in
            ["", "/ip4/127.0.0.1/tcp/1", "/ip4/127.0.0.1/tcp/1/p2p/", "x/p2p/12D3", "/ip4/1.2.3.4/tcp/1/p2p/QmYyQ"]
        {
            assert!(check_address(bad).is_err(), "{bad}");
        }
        let mut flipped = peer.to_string();
        let last = flipped.pop().unwrap();
        flipped.push(if last == 'a' { 'b' } else { 'a' });
        assert_ne!(node_of(&format!("/ip4/1.2.3.4/tcp/1/p2p/{flipped}")), Some(node));
    }
}
