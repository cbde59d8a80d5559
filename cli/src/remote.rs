//! Reaching the owner's databases: keystore, addresses, session.

use crate::args::{Place, Unlock};
use crate::commands::keys;
use crate::error::{Context, Failure, Kind, Result};
use crate::home::Home;
use crate::output::{self, Out};
use fluence_client::cluster::Statuses;
use fluence_client::dial::{DialOptions, Dialer};
use fluence_client::keyring::KeyError;
use fluence_client::{ClientError, Database, Keystore, Session, Table};
use fluence_types::answer::OpenRefusal;
use fluence_types::block::quorum;
use fluence_types::{DatabaseId, NodeId};
use fluence_wire::message::Refusal;
use rand::SeedableRng;
use rand::rngs::{OsRng, StdRng};
use std::future::Future;
use std::time::Duration;

/// An unlocked keystore and a way to the nodes that `--node` or the configuration names.
pub(crate) struct Remote {
    session: Session<Dialer>,
    nodes: Vec<(NodeId, String)>,
}

impl Remote {
    /// Unlocks, and starts a dialer. `remember`: nodes given by `--node` go into the configuration.
    pub(crate) async fn open(home: &Home, place: &Place, unlock: &Unlock, remember: bool) -> Result<Self> {
        Self::with(home, place, unlock, remember, |keystore| keystore)
    }

    /// The same for a command that only looks, perhaps for long: what others write beside it into the keystore's state stays.
    pub(crate) async fn look(home: &Home, place: &Place, unlock: &Unlock) -> Result<Self> {
        Self::with(home, place, unlock, true, Keystore::read_only)
    }

    fn with(
        home: &Home,
        place: &Place,
        unlock: &Unlock,
        remember: bool,
        keystore_as: impl FnOnce(Keystore) -> Keystore,
    ) -> Result<Self> {
        let known = home.config()?.databases.remove(&place.db).unwrap_or_default();
        if named(&known, &place.node)?.is_empty() {
            return Err(Failure::usage(format!("no node is known for database {:?}", place.db))
                .help("name it once: --node /ip4/127.0.0.1/tcp/4401/p2p/12D3KooW..; once for each member"));
        }
        Self::of(keystore_as(keys::open(home, unlock)?), home, place, remember)
    }

    /// The same with a keystore that is open.
    pub(crate) fn of(keystore: Keystore, home: &Home, place: &Place, remember: bool) -> Result<Self> {
        let mut config = home.config()?;
        let known = config.databases.get(&place.db).cloned().unwrap_or_default();
        let nodes = named(&known, &place.node)?;
        let addresses: Vec<String> = nodes.iter().map(|(_, address)| address.clone()).collect();
        if let (Some(other), Some(id)) = (known.id, place.db_id)
            && other != id
        {
            let what = format!("database {:?} is {other} here", place.db);
            return Err(Failure::usage(what).help("take another --db for it"));
        }
        if remember && known.nodes != addresses {
            config.databases.entry(place.db.clone()).or_default().nodes = addresses;
            home.save(&config)?;
        }
        let dialer = Dialer::start(DialOptions::default()).doing("cannot start the network")?;
        for (node, address) in &nodes {
            dialer.add_address(node, address).usage(format!("{address} cannot be used"))?;
        }
        for (id, known) in
            keystore.state.databases.values().flat_map(|d| d.addresses.iter().map(|a| (a.0, a.1.clone())))
        {
            // Old addresses of other members: one that is malformed by now only is no help.
            let _ = dialer.add_address(&id, &known);
        }
        let rng = StdRng::from_rng(OsRng).doing("the system gives no randomness")?;
        Ok(Self { session: Session::new(dialer, keystore, rng), nodes })
    }

    /// The session.
    pub(crate) const fn session(&self) -> &Session<Dialer> {
        &self.session
    }

    /// The nodes that are named, with their addresses.
    pub(crate) fn nodes(&self) -> &[(NodeId, String)] {
        &self.nodes
    }

    /// Leaves out nodes that are named.
    pub(crate) fn retain(&mut self, named: impl Fn(&NodeId) -> bool) {
        self.nodes.retain(|(node, _)| named(node));
    }

    /// The database that `--db` names: from the configuration, else found on the nodes.
    pub(crate) async fn database(&self, home: &Home, place: &Place) -> Result<Database<Dialer>> {
        if let Some(database) = self.find(home, place).await? {
            return Ok(database);
        }
        let named = match &self.nodes[..] {
            [(node, _)] => format!("node {node} keeps"),
            nodes => format!("the {} nodes keep", nodes.len()),
        };
        Err(Failure::failed(format!("{named} no database of this owner that is {:?} here", place.db))
            .help("`fluence import` or `fluence cluster create` makes it; or name other nodes with --node, another database with --db"))
    }

    /// The same, made if there is none.
    pub(crate) async fn database_or_new(&self, home: &Home, place: &Place, out: &Out) -> Result<Database<Dialer>> {
        match self.find(home, place).await? {
            Some(database) => Ok(database),
            None => self.create(home, place, out).await,
        }
    }

    /// Makes the database, kept by the nodes that are named.
    pub(crate) async fn create(&self, home: &Home, place: &Place, out: &Out) -> Result<Database<Dialer>> {
        self.create_as(self.session.new_database_id(), home, place, out).await
    }

    /// The same with an id for which members were drawn.
    pub(crate) async fn create_as(
        &self,
        id: DatabaseId,
        home: &Home,
        place: &Place,
        out: &Out,
    ) -> Result<Database<Dialer>> {
        let nodes: Vec<NodeId> = self.nodes.iter().map(|(node, _)| *node).collect();
        self.await_nodes(&nodes).await?;
        let made = self.session.create_database_as(id, &place.db, nodes, self.nodes.clone()).await;
        let database = made.map_err(|e| failure(e, "cannot make the database"))?;
        out.note(format!("database {:?} made: {}", place.db, database.id()));
        self.keep(home, place, database.id())?;
        Ok(database)
    }

    /// Fails where a node that is to be a member does not answer, naming all that do not.
    async fn await_nodes(&self, nodes: &[NodeId]) -> Result<()> {
        let asked = self.session.members(nodes).await;
        let failed: Vec<_> = asked.into_iter().zip(&self.nodes).filter_map(|((_, r), n)| Some((r.err()?, n))).collect();
        let Some((first, _)) = failed.first() else { return Ok(()) };
        let what = match nodes.len() {
            1 => "the node does not answer as a member".to_owned(),
            all => format!("{} of {all} nodes do not answer as members", failed.len()),
        };
        let kind = failure_kind(first);
        let failure = failed
            .iter()
            .fold(Failure::new(kind, what), |f, (why, (_, address))| f.because(format!("{address}: {why}")));
        Err(failure.help("all members of a new database must be there once, for the keys they vote with; start them, or leave them out"))
    }

    async fn find(&self, home: &Home, place: &Place) -> Result<Option<Database<Dialer>>> {
        let config = home.config()?;
        let kept = config.databases.get(&place.db).and_then(|d| d.id);
        if let Some(id) = kept.or(place.db_id) {
            let database = self.known_or_found(id).await;
            let database = database.map_err(|e| failure(e, &format!("cannot open database {:?}, {id}", place.db)))?;
            // Kept once it was opened: a mistyped id does not take the name.
            if kept.is_none() {
                self.keep(home, place, id)?;
            }
            return Ok(Some(database));
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
                        return Err(Failure::usage(format!("the nodes keep {} databases of this owner", found.len()))
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

    /// A database by its id. Where the keystore does not know it, it was restored, and the network brings its state back; or the database
    /// is another owner's.
    async fn known_or_found(&self, id: DatabaseId) -> std::result::Result<Database<Dialer>, ClientError> {
        if let Ok(known) = self.session.database(id) {
            return Ok(known);
        }
        self.session.recover(&self.nodes).await?;
        match self.session.database(id) {
            Ok(own) => Ok(own),
            Err(_) => self.session.find_database(id, &self.nodes).await,
        }
    }

    async fn recover(&self) -> Result<Vec<DatabaseId>> {
        self.session.recover(&self.nodes).await.map_err(|e| failure(e, "cannot look for databases of this owner"))
    }

    fn keep(&self, home: &Home, place: &Place, id: DatabaseId) -> Result<()> {
        let mut config = home.config()?;
        let entry = config.databases.entry(place.db.clone()).or_default();
        entry.id = Some(id);
        if entry.nodes.is_empty() {
            entry.nodes = self.nodes.iter().map(|(_, address)| address.clone()).collect();
        }
        home.save(&config)
    }
}

/// The nodes of a database: those of `given` take the place of those in the configuration. Where there is a database already, they are
/// the same nodes at other addresses, or further ones.
fn named(known: &crate::home::Database, given: &[String]) -> Result<Vec<(NodeId, String)>> {
    let parse = |list: &[String]| {
        let mut nodes: Vec<(NodeId, String)> = Vec::with_capacity(list.len());
        for address in list {
            let node = check_address(address)?;
            if nodes.iter().any(|(n, _)| *n == node) {
                return Err(Failure::usage(format!("node {node} is named twice")).help("each member once"));
            }
            nodes.push((node, address.clone()));
        }
        Ok(nodes)
    };
    let (known_nodes, given) = (parse(&known.nodes)?, parse(given)?);
    if known.id.is_none() && !given.is_empty() {
        return Ok(given);
    }
    let mut nodes = known_nodes;
    for (node, address) in given {
        match nodes.iter_mut().find(|(n, _)| *n == node) {
            Some((_, known)) => *known = address,
            None => nodes.push((node, address)),
        }
    }
    Ok(nodes)
}

/// Which exit code an error of the client ends in.
fn failure_kind(error: &ClientError) -> Kind {
    match error {
        ClientError::Answer { .. }
        | ClientError::Page { .. }
        | ClientError::Proof { .. }
        | ClientError::Committee { .. }
        | ClientError::Signature { .. } => Kind::Refused,
        ClientError::Schema(_) | ClientError::Aggregate { .. } | ClientError::Plan(_) => Kind::Usage,
        ClientError::TooFew { why, .. } => failure_kind(why),
        _ => Kind::Failed,
    }
}

/// A client's error as a failure: refused answers are exit code 3.
pub(crate) fn failure(error: ClientError, what: &str) -> Failure {
    let help = match &error {
        ClientError::Answer { .. }
        | ClientError::Page { .. }
        | ClientError::Proof { .. }
        | ClientError::Committee { .. }
        | ClientError::Signature { .. } => {
            "the node's answer was not believed, and nothing of it was used; ask another member"
        }
        ClientError::Refused { refusal: Refusal::Open(OpenRefusal::Lost { .. }), .. } => {
            "the node lost data and says so; another member may have it"
        }
        ClientError::Refused { refusal: Refusal::Busy(_), .. } => {
            "the cluster did not agree in time: `fluence cluster status` shows who is missing"
        }
        ClientError::Leased { .. } => "one writer at a time: run it again when the lease is over",
        ClientError::LeaseLost { .. } => "another may write the table since; look at it, and run it again",
        ClientError::Refused { .. } | ClientError::Op(_) => "the node says why above",
        ClientError::Transport(_) => "is the node running, and is its address right? `fluence doctor` asks it",
        ClientError::TooFew { .. } => {
            "a quorum is more than two thirds of the members: `fluence cluster status` shows who is missing"
        }
        ClientError::Stranger { .. } => "name every member: --node ADDR, once for each; naming them is trusting them",
        ClientError::Member { .. } => "`fluence cluster members` lists the members",
        ClientError::Key(KeyError::Sealed { .. }) => {
            "another owner's table, and nothing of it is public: the owner's keys open it, `fluence keys restore`"
        }
        ClientError::UnknownDatabase(_) => {
            "is the id right, as the owner's `fluence cluster status` shows it? are the nodes its members?"
        }
        ClientError::UnknownTable(_) => "`fluence import FILE --table NAME --key COLS` makes it",
        ClientError::Schema(_) | ClientError::Aggregate { .. } => {
            "sums are declared when the table is made: `fluence import .. --sum`; variances need the square, as x*x"
        }
        ClientError::Plan(_) => "ask for a smaller range or fewer columns",
        ClientError::Csv(_) | ClientError::Source(_) | ClientError::Seal(_) => {
            "correct the file, or the types with --types and --null"
        }
        ClientError::TooManySegments { .. } => {
            "all live segments of the table are as large as they get: `fluence table stats` lists them; import the rest into another table"
        }
        _ => "run it again; `fluence doctor` looks for the usual causes",
    };
    Failure::new(failure_kind(&error), what).because(error).help(help)
}

/// The same, and how many members answer, where an error may come of too few of them.
pub(crate) async fn failure_of(database: &Database<Dialer>, error: ClientError, what: &str) -> Failure {
    let may_be_few = matches!(
        error,
        ClientError::Transport(_)
            | ClientError::TooFew { .. }
            | ClientError::Behind { .. }
            | ClientError::Refused { refusal: Refusal::Busy(_), .. }
    );
    let failed = failure(error, what);
    if !may_be_few {
        return failed;
    }
    match database.cluster_status().await {
        Ok(statuses) => match no_quorum(&statuses) {
            Some(why) => failed.because(why),
            None => failed,
        },
        Err(_) => failed,
    }
}

/// A table by its name; one that SQL made, whose name is followed by a number, by what SQL calls it where there is no other.
pub(crate) async fn table_named(database: &Database<Dialer>, name: &str) -> Result<Table<Dialer>> {
    let what = "cannot open the table";
    match database.table(name).await {
        Err(ClientError::UnknownTable(_)) => {}
        Err(e) => return Err(failure_of(database, e, what).await),
        Ok(table) => return Ok(table),
    }
    let tables = database.tables().await.map_err(|e| failure(e, what))?;
    let of_sql = |full: &str| {
        full.rsplit_once('~').is_some_and(|(base, n)| base == name && n.bytes().all(|b| b.is_ascii_digit()))
    };
    let found: Vec<&str> = tables.iter().map(|t| t.name()).filter(|n| of_sql(n)).collect();
    match found[..] {
        [one] => database.table(one).await.map_err(|e| failure(e, what)),
        [] => {
            let names: Vec<&str> = tables.iter().map(|t| t.name()).collect();
            Err(Failure::failed(format!("there is no table {name:?} in this database")).help(if names.is_empty() {
                "there are none yet".to_owned()
            } else {
                format!("there are {}", names.join(", "))
            }))
        }
        _ => Err(Failure::usage(format!("{} tables are called {name:?} by SQL, now or before", found.len()))
            .help(format!("name one: {}", found.join(", ")))),
    }
}

/// How long an act may take before members are asked whether they are there.
const SILENCE: Duration = Duration::from_secs(5);

/// Waits for an act of the cluster; where it takes long, says which members do not answer.
pub(crate) async fn watched<R>(database: &Database<Dialer>, out: &Out, act: impl Future<Output = R>) -> R {
    let mut act = std::pin::pin!(act);
    if let Ok(done) = tokio::time::timeout(SILENCE, act.as_mut()).await {
        return done;
    }
    let looked = async {
        let Ok(statuses) = database.cluster_status().await else { return };
        let silent = statuses.iter().filter(|(_, r)| r.is_err()).map(|(node, _)| output::short(node));
        let silent: Vec<String> = silent.collect();
        match no_quorum(&statuses) {
            Some(why) => out.note(format!("{why}; waiting for them")),
            None if silent.is_empty() => {}
            None => out.note(format!("no answer yet of {}", silent.join(", "))),
        }
    };
    tokio::select! {
        done = act.as_mut() => return done,
        () = looked => {}
    }
    act.await
}

/// Says how many members answer, where it is less than a quorum.
pub(crate) fn no_quorum(statuses: &Statuses) -> Option<String> {
    let (members, need) = (statuses.len(), quorum(statuses.len()));
    let silent: Vec<String> =
        statuses.iter().filter(|(_, r)| r.is_err()).map(|(node, _)| output::short(node)).collect();
    let answer = members - silent.len();
    (answer < need).then(|| {
        format!(
            "the cluster has no quorum: {answer} of {members} members answer, {need} are needed (missing: {})",
            silent.join(", ")
        )
    })
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
pub(crate) fn node_of(address: &str) -> Option<NodeId> {
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
