//! A year of flights: four databases, each kept by four nodes as a cluster, one of which is killed on the way and replaced in the first
//! quarter's; and what each owes from then on.

use super::fifth::{FIFTH, REPLACED_IN};
use super::{DAMAGE_MAX, NODES, PATIENCE, Play, World};
use crate::commands::import;
use crate::demo::data;
use crate::demo::story::{Story, round};
use crate::error::{Context, Failure, Result};
use crate::{output, remote};
use fluence_bindings::{Chain, Registration};
use fluence_client::Transport;
use fluence_client::csv::{CsvOptions, infer_columns};
use fluence_client::dial::Dialer;
use fluence_client::{Database, Table, TableSchema};
use fluence_types::Epoch;
use fluence_wire::message::ClusterStatus;
use fluence_wire::{Request, Response};
use std::time::{Duration, Instant};

/// The node that is killed while the flights come in.
pub(super) const KILLED: usize = 3;
/// The quarter before which it is killed.
const KILLED_BEFORE: usize = 2;

/// The nodes that keep a quarter once the fifth has its seat.
pub(super) fn keepers(quarter: usize) -> [usize; NODES] {
    std::array::from_fn(|i| if quarter == REPLACED_IN && i == KILLED { FIFTH } else { i })
}

impl Play {
    pub(super) async fn import(&mut self, story: &mut Story, world: &World) -> Result<Vec<Table<Dialer>>> {
        story.act(
            "A year of flights",
            "336,776 flights of 2013, sealed on this side. Each quarter is a database that all four nodes keep and agree on: they see sizes,
never values.",
        );
        story.begin("import");
        let quarters = data::split(&self.csv, &self.dir)?;
        let options = CsvOptions { null: data::NULL.to_owned(), ..CsvOptions::default() };
        let columns = infer_columns(&self.csv, &options).doing("the flights cannot be read")?;
        let text = |list: &[&str]| list.iter().map(|s| (*s).to_owned()).collect::<Vec<_>>();
        let schema = import::make_schema("flights", columns, &text(&data::KEY), &text(&data::SUMS))?;
        let mut tables = Vec::new();
        for i in 0..quarters.len() {
            tables.push(self.make_quarter(world, i, &schema).await?);
        }
        let (mut rows, mut cells, mut permutations) = (0, 0, 0);
        let (mut seal_ms, mut hash_ms, begun) = (0.0, 0.0, Instant::now());
        for (i, (path, count)) in quarters.iter().enumerate() {
            if i == KILLED_BEFORE {
                self.nodes[KILLED].kill();
                story.tell(format!(
                    "{}  killed, as by a power cut; three of four are a quorum",
                    self.nodes[KILLED].name
                ));
            }
            self.check()?;
            let committed = import::file_into(&tables[i], path, &options, story.out()).await?;
            if committed.rows != *count {
                return Err(Failure::failed(format!(
                    "{} rows of quarter {} are live, the file has {count}",
                    committed.rows,
                    i + 1
                )));
            }
            let s = committed.seal;
            (rows, cells, permutations) = (rows + committed.rows, cells + s.cells, permutations + s.permutations);
            (seal_ms, hash_ms) = (seal_ms + s.ms, hash_ms + s.hash_ms);
            story.tell(format!(
                "quarter-{}  {} rows, {} cells, certified at height {}, root {}",
                i + 1,
                output::count(committed.rows),
                output::count(s.cells),
                committed.height,
                output::short(committed.root),
            ));
        }
        if rows != data::ROWS {
            story.tell(format!("this is not the file the demo was made for: {rows} rows, expected {}", data::ROWS));
        }
        let seconds = begun.elapsed().as_secs_f64();
        let per_second = (rows as f64 / seconds) as u64;
        story.fact("rows", rows);
        story.fact("rows_per_second", per_second);
        story.fact("cells", cells);
        story.fact("permutations", permutations);
        story.fact("seal_seconds", round(seal_ms / 1e3));
        story.fact("hash_seconds", round(hash_ms / 1e3));
        story.end(format!(
            "{} rows at {} rows/s; client and all members hash every tree on these cores; the client spent {:.0} % of sealing on the hash",
            output::count(rows),
            output::count(per_second),
            100.0 * hash_ms / seal_ms.max(1.0),
        ));

        self.anchor(story, world, &tables).await?;
        self.replace_by_a_fifth(story, world, &tables).await?;
        self.hand_over_on_chain(story, world, &tables).await?;

        story.begin("the killed node comes back");
        let caught_up = self.come_back(world, &tables).await?;
        story.fact("killed", self.nodes[KILLED].name.clone());
        story.fact("caught_up_seconds", round(caught_up));
        story.end(format!(
            "{} restarted, executed what it missed of the other quarters and fetched every cell in {caught_up:.1} s; all members have the same roots",
            self.nodes[KILLED].name
        ));

        story.begin("register roots");
        let mut from = Epoch(0);
        for (quarter, table) in tables.iter().enumerate() {
            for i in keepers(quarter) {
                from = from.max(self.register(world, i, table).await?);
            }
        }
        story.fact("from_epoch", from.0);
        story.end(format!("owner and operators signed what each node owes, from epoch {from} on"));
        Ok(tables)
    }

    /// A database that all nodes keep, with its table.
    async fn make_quarter(&mut self, world: &World, i: usize, schema: &TableSchema) -> Result<Table<Dialer>> {
        self.check()?;
        let failed = |e| remote::failure(e, "a database cannot be made");
        let addresses = self.nodes.iter().map(|n| (n.id, n.address().to_owned())).collect();
        let nodes = self.nodes.iter().map(|n| n.id).collect();
        let label = format!("quarter-{}", i + 1);
        let database: Database<Dialer> =
            world.session.create_database(&label, nodes, addresses).await.map_err(failed)?;
        database.create_table(schema.clone()).await.map_err(failed)
    }

    /// Starts the killed node again, and waits until it has everything that the others have. Returns the seconds it took.
    async fn come_back(&mut self, world: &World, tables: &[Table<Dialer>]) -> Result<f64> {
        let begun = Instant::now();
        self.nodes[KILLED].start(&self.memory).await?;
        world.dialer.forget(&self.nodes[KILLED].id);
        world
            .dialer
            .add_address(&self.nodes[KILLED].id, self.nodes[KILLED].address())
            .doing("the node's address cannot be used")?;
        for (quarter, table) in tables.iter().enumerate().filter(|(quarter, _)| keepers(*quarter).contains(&KILLED)) {
            let ahead = self.stand(world, 0, table).await?;
            loop {
                self.check()?;
                let back = self.stand(world, KILLED, table).await?;
                if back.height >= ahead.height && back.missing_segments == 0 {
                    break;
                }
                if begun.elapsed() > PATIENCE {
                    return Err(Failure::failed("the killed node does not catch up").because(format!("{back:?}")));
                }
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
            let mut roots = Vec::new();
            for i in keepers(quarter) {
                roots.push(self.stand(world, i, table).await?.root);
            }
            if roots.iter().any(|r| *r != roots[0]) {
                return Err(
                    Failure::refused("the members of a cluster have different roots").because(format!("{roots:?}"))
                );
            }
        }
        Ok(begun.elapsed().as_secs_f64())
    }

    /// How a database stands on a node.
    pub(super) async fn stand(&self, world: &World, i: usize, table: &Table<Dialer>) -> Result<ClusterStatus> {
        let node = &self.nodes[i];
        let request = Request::Cluster { db: table.db() };
        match world.dialer.request(&node.id, request).await.doing(format!("{} does not answer", node.name))? {
            Response::Cluster(status) => Ok(*status),
            other => {
                Err(Failure::failed(format!("{} does not know a database", node.name)).because(format!("{other:?}")))
            }
        }
    }

    /// Registers a database's certified root: signed by the owner, sent by the operator. Returns the first epoch of the debt.
    async fn register(&self, world: &World, i: usize, table: &Table<Dialer>) -> Result<Epoch> {
        let node = &self.nodes[i];
        let database = world.session.database(table.db()).map_err(|e| remote::failure(e, "a database is unknown"))?;
        let snapshot = database.snapshot(table).await.map_err(|e| remote::failure(e, "a root cannot be read"))?;
        let registration = Registration {
            node: node.id,
            operator: node.operator.address,
            owner: world.session.address(),
            db: table.db(),
            root: snapshot.checkpoint().root,
            cells: snapshot.opening().db.stored_cells,
            height: snapshot.checkpoint().height,
            until: Epoch(1_000_000),
            damage_max: DAMAGE_MAX,
        };
        let signature = world.session.keyring().sign_prehash(world.chain.domain().registration_digest(&registration));
        let connection = node.operator.connect(self.anvil().rpc_url())?;
        let theirs =
            Chain::open(connection, world.chain.deployment().clone()).await.doing("the chain does not answer")?;
        theirs.register_root(&registration, Some(&signature), None).await.doing("a root cannot be registered")?;
        let latest = world.chain.latest(&node.id, &table.db()).await.doing("a registration cannot be read")?;
        latest.map(|v| v.from).ok_or_else(|| Failure::failed("a registration is not on chain"))
    }
}
