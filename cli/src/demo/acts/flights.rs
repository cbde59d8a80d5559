//! A year of flights: a quarter a node, and what each node owes from then on.

use super::{DAMAGE_MAX, Play, World};
use crate::commands::import;
use crate::demo::data;
use crate::demo::story::{Story, round};
use crate::error::{Context, Failure, Result};
use crate::{output, remote};
use fluence_bindings::{Chain, Registration};
use fluence_client::csv::{CsvOptions, infer_columns};
use fluence_client::dial::Dialer;
use fluence_client::{Database, Table, TableSchema};
use fluence_types::Epoch;
use std::path::Path;
use std::time::Instant;

impl Play {
    pub(super) async fn import(&mut self, story: &mut Story, world: &World) -> Result<Vec<Table<Dialer>>> {
        story.act(
            "A year of flights",
            "336,776 flights of 2013, sealed on this side and stored a quarter a node: the nodes see sizes, never values.",
        );
        story.begin("import");
        let quarters = data::split(&self.csv, &self.dir)?;
        let options = CsvOptions { null: data::NULL.to_owned(), ..CsvOptions::default() };
        let columns = infer_columns(&self.csv, &options).doing("the flights cannot be read")?;
        let text = |list: &[&str]| list.iter().map(|s| (*s).to_owned()).collect::<Vec<_>>();
        let schema = import::make_schema("flights", columns, &text(&data::KEY), &text(&data::SUMS))?;
        let (mut tables, mut rows, mut cells, mut permutations) = (Vec::new(), 0, 0, 0);
        let (mut seal_ms, mut hash_ms, begun) = (0.0, 0.0, Instant::now());
        for (i, (path, count)) in quarters.iter().enumerate() {
            let (table, committed) = self.import_quarter(story, world, i, path, &options, &schema).await?;
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
                "{}  {} rows, {} cells, certified at height {}, root {}",
                self.nodes[i].name,
                output::count(committed.rows),
                output::count(s.cells),
                committed.height,
                output::short(committed.root),
            ));
            tables.push(table);
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
            "{} rows at {} rows/s, both sides hashing every tree; the client spent {:.0} % of sealing on the hash",
            output::count(rows),
            output::count(per_second),
            100.0 * hash_ms / seal_ms.max(1.0),
        ));

        story.begin("register roots");
        let mut from = Epoch(0);
        for (i, table) in tables.iter().enumerate() {
            from = from.max(self.register(world, i, table).await?);
        }
        story.fact("from_epoch", from.0);
        story.end(format!("owner and operators signed what each node owes, from epoch {from} on"));
        Ok(tables)
    }

    async fn import_quarter(
        &mut self,
        story: &Story,
        world: &World,
        i: usize,
        path: &Path,
        options: &CsvOptions,
        schema: &TableSchema,
    ) -> Result<(Table<Dialer>, fluence_client::Committed)> {
        self.check()?;
        let node = &self.nodes[i];
        let failed = |e| remote::failure(e, "a quarter cannot be stored");
        let addresses = vec![(node.id, node.address().to_owned())];
        let label = format!("quarter-{}", i + 1);
        let database: Database<Dialer> =
            world.session.create_database(&label, vec![node.id], addresses).await.map_err(failed)?;
        let table = database.create_table(schema.clone()).await.map_err(failed)?;
        let committed = import::file_into(&table, path, options, story.out()).await?;
        Ok((table, committed))
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
