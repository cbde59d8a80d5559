//! Damage: pages overwritten from outside are answered "lost"; a liar with good checksums is refused.

use super::{Play, SHAPE, World};
use crate::demo::damage::{self, CHANCE_MAX};
use crate::demo::story::Story;
use crate::error::{Context, Failure, Result};
use crate::{output, remote};
use fluence_client::dial::{DialOptions, Dialer};
use fluence_client::{ClientError, KeyRange, Keyring, Keystore, Select, Session, Table, TableSchema};
use fluence_types::answer::OpenRefusal;
use fluence_wire::message::Refusal;
use rand::SeedableRng;
use rand::rngs::{OsRng, StdRng};
use serde_json::json;

impl Play {
    pub(super) async fn damage(
        &mut self,
        story: &mut Story,
        world: &World,
        tables: &[Table<Dialer>],
        chosen: usize,
    ) -> Result<()> {
        let name = self.nodes[chosen].name.clone();
        story.act(
            "Damage",
            &format!("DEMO_SEED={} chooses {name}. Its process is stopped, and bytes of its stored pages are overwritten from outside.", self.args.seed),
        );
        story.report.damaged = Some(self.nodes[chosen].id.to_string());
        story.begin("overwrite");
        self.nodes[chosen].stop().await;
        let data_dir = self.nodes[chosen].data_dir().to_owned();
        let (store, copy, seed) = (data_dir.join("store"), self.dir.join("liar"), self.args.seed);
        let done = tokio::task::spawn_blocking(move || {
            // The liar gets the data as it was.
            damage::copy_folder(&data_dir, &copy)?;
            damage::overwrite(&store, SHAPE.samples, &mut StdRng::seed_from_u64(seed ^ 0x00da_3a9e))
        });
        let damage = done.await.expect("overwriting does not panic")?;
        if damage.chance >= CHANCE_MAX {
            return Err(Failure::failed("the damage is too small to be sure of").because(format!("{damage:?}")));
        }
        story.fact("node", name.clone());
        story.fact("pages", damage.pages);
        story.fact("damaged_pages", damage.damaged);
        story.fact("cells", damage.cells);
        story.fact("bad_cells", damage.bad_cells);
        story.fact("chance_of_no_bad_sample", json!(damage.chance));
        story.end(format!(
            "{} of {} pages of {name} hit by {} writes to {} files; P(no bad sample) = (1 - {}/{})^{} = {:.1e} < {CHANCE_MAX:.0e}",
            damage.damaged,
            damage.pages,
            damage.writes,
            damage.files.len(),
            damage.bad_cells,
            damage.cells,
            SHAPE.samples,
            damage.chance,
        ));

        story.begin("lost, never wrong");
        self.nodes[chosen].start(&self.memory).await?;
        world.dialer.forget(&self.nodes[chosen].id);
        world
            .dialer
            .add_address(&self.nodes[chosen].id, self.nodes[chosen].address())
            .doing("the node's address cannot be used")?;
        let address = self.nodes[chosen].address().to_owned();
        let (_, alone) = self.ask_only(world, chosen, &address, &tables[chosen]).await?;
        let (lost, good) = lost_answers(story, &alone, chosen).await?;
        if lost == 0 {
            return Err(Failure::failed(format!("{name} answered everything, though most of its pages are damaged")));
        }
        story.fact("lost_answers", lost);
        story.fact("good_answers", good);
        let truly = if good == 0 { String::new() } else { format!(", {good} truly") };
        story.end(format!(
            "restarted, {name} finds it by its checksums: {lost} questions answered \"lost\"{truly}, none wrongly"
        ));

        story.begin("a liar");
        let refused = self.liar(story, world, &tables[chosen], chosen).await?;
        story.report.refused_answers = refused;
        story.fact("refused_answers", refused);
        story.end(format!(
            "a lying {name} with its checksums redone: all {refused} answers refused, each naming the page"
        ));
        Ok(())
    }

    /// The owner again, but one who reaches a single member: what it cannot answer, nobody answers for it.
    async fn ask_only(
        &self,
        world: &World,
        chosen: usize,
        address: &str,
        table: &Table<Dialer>,
    ) -> Result<(Session<Dialer>, Table<Dialer>)> {
        // A fresh dialer: one connected to another process would go on asking that.
        let dialer = Dialer::start(DialOptions::default()).doing("cannot start the network")?;
        dialer.add_address(&self.nodes[chosen].id, address).doing("the node's address cannot be used")?;
        let keyring = Keyring::from_phrase(&world.session.keyring().phrase()).doing("the owner's keys are gone")?;
        let rng = StdRng::from_rng(OsRng).doing("the system gives no randomness")?;
        let session = Session::new(dialer, Keystore::in_memory(keyring), rng);
        for (id, known) in world.session.known() {
            session.remember(id, known).map_err(|e| remote::failure(e, "the database is unknown"))?;
        }
        let database = session.database(table.db()).map_err(|e| remote::failure(e, "the database is unknown"))?;
        let table = database.table("flights").await.map_err(|e| remote::failure(e, "the table is unknown"))?;
        Ok((session, table))
    }

    /// A liar takes the node's place; the client must refuse each of its answers.
    async fn liar(&mut self, story: &Story, world: &World, table: &Table<Dialer>, chosen: usize) -> Result<u64> {
        let node = &self.nodes[chosen];
        let (mut liar, address) = node.start_liar(&self.dir.join("liar"), &self.dir, &self.memory).await?;
        let (_, lied_to) = self.ask_only(world, chosen, &address, table).await?;
        let mut refused = 0;
        for range in slices(table.schema(), chosen)? {
            let select = Select::range(range).columns(&["carrier", "dest"]);
            match lied_to.select(&select).await {
                Err(ClientError::Page { segment, page, .. }) => {
                    if refused < 3 {
                        let segment = output::short(segment);
                        story.tell(format!("refused: page {page} of segment {segment} is not the one stored: its cells do not make the root"));
                    }
                    refused += 1;
                }
                Ok(_) => return Err(Failure::refused("the client believed the liar")),
                Err(other) => return Err(remote::failure(other, "the liar was not refused for a page of its own")),
            }
        }
        liar.check()?;
        tokio::task::spawn_blocking(move || liar.stop()).await.expect("stopping a child does not panic");
        Ok(refused)
    }
}

/// Asks many small questions of a damaged node: each answer is "lost" or verifies.
async fn lost_answers(story: &Story, table: &Table<Dialer>, quarter: usize) -> Result<(u64, u64)> {
    let (mut lost, mut good) = (0, 0);
    for range in slices(table.schema(), quarter)? {
        match table.select(&Select::range(range).columns(&["carrier", "dest"])).await {
            Ok(_) => good += 1,
            Err(ClientError::Refused { refusal: Refusal::Open(why @ OpenRefusal::Lost { .. }), .. }) => {
                if lost < 3 {
                    story.tell(&why);
                }
                lost += 1;
            }
            Err(other) => return Err(remote::failure(other, "the damaged node answered neither truly nor \"lost\"")),
        }
    }
    Ok((lost, good))
}

/// Spans of a few hours in each quarter.
const QUARTER_SLICES: [[(&str, &str); 6]; 4] = [
    [
        ("2013-01-05T12:00:00Z", "2013-01-05T18:00:00Z"),
        ("2013-01-20T12:00:00Z", "2013-01-20T18:00:00Z"),
        ("2013-02-04T12:00:00Z", "2013-02-04T18:00:00Z"),
        ("2013-02-19T12:00:00Z", "2013-02-19T18:00:00Z"),
        ("2013-03-06T12:00:00Z", "2013-03-06T18:00:00Z"),
        ("2013-03-21T12:00:00Z", "2013-03-21T18:00:00Z"),
    ],
    [
        ("2013-04-05T12:00:00Z", "2013-04-05T18:00:00Z"),
        ("2013-04-20T12:00:00Z", "2013-04-20T18:00:00Z"),
        ("2013-05-05T12:00:00Z", "2013-05-05T18:00:00Z"),
        ("2013-05-20T12:00:00Z", "2013-05-20T18:00:00Z"),
        ("2013-06-04T12:00:00Z", "2013-06-04T18:00:00Z"),
        ("2013-06-19T12:00:00Z", "2013-06-19T18:00:00Z"),
    ],
    [
        ("2013-07-05T12:00:00Z", "2013-07-05T18:00:00Z"),
        ("2013-07-20T12:00:00Z", "2013-07-20T18:00:00Z"),
        ("2013-08-04T12:00:00Z", "2013-08-04T18:00:00Z"),
        ("2013-08-19T12:00:00Z", "2013-08-19T18:00:00Z"),
        ("2013-09-03T12:00:00Z", "2013-09-03T18:00:00Z"),
        ("2013-09-18T12:00:00Z", "2013-09-18T18:00:00Z"),
    ],
    [
        ("2013-10-05T12:00:00Z", "2013-10-05T18:00:00Z"),
        ("2013-10-20T12:00:00Z", "2013-10-20T18:00:00Z"),
        ("2013-11-04T12:00:00Z", "2013-11-04T18:00:00Z"),
        ("2013-11-19T12:00:00Z", "2013-11-19T18:00:00Z"),
        ("2013-12-04T12:00:00Z", "2013-12-04T18:00:00Z"),
        ("2013-12-19T12:00:00Z", "2013-12-19T18:00:00Z"),
    ],
];

/// Key ranges of a quarter.
fn slices(schema: &TableSchema, quarter: usize) -> Result<Vec<KeyRange>> {
    QUARTER_SLICES[quarter].iter().map(|(a, b)| crate::values::key_range(schema, Some(a), Some(b), None)).collect()
}
