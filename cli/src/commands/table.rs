//! `fluence table`: which tables there are, how one stands, and its segments merged.

use crate::args::{Table as Command, TableName, TablePlace};
use crate::error::Result;
use crate::home::Home;
use crate::output::{self, Out};
use crate::remote::{self, Remote};
use fluence_client::seal::SEGMENT_ROWS_MAX;
use fluence_client::{Column, TableStats};
use fluence_types::limits::LIVE_SEGMENTS_MAX;
use fluence_types::shape::RangeSumShape;
use serde_json::{Value, json};

/// From so many live segments on, group commits merge.
const MERGED_FROM: usize = fluence_client::group::MERGED_FROM;

pub(crate) async fn run(command: &Command, home: &Home, out: &Out) -> Result<()> {
    match command {
        Command::Ls(args) => list(args, home, out).await,
        Command::Stats(args) => stats(args, home, out).await,
        Command::Compact(args) => compact(args, home, out).await,
    }
}

async fn list(args: &TablePlace, home: &Home, out: &Out) -> Result<()> {
    let remote = Remote::open(home, &args.place, &args.unlock, true).await?;
    let database = remote.database(home, &args.place).await?;
    let tables = database.tables().await.map_err(|e| remote::failure(e, "cannot list the tables"))?;
    let value: Vec<Value> = tables
        .iter()
        .map(|t| json!({ "table": t.name(), "columns": t.columns(), "key": t.key(), "sums": t.sums().iter().map(ToString::to_string).collect::<Vec<_>>() }))
        .collect();
    out.result(&json!({ "db": database.id(), "tables": value }), |out| {
        if tables.is_empty() {
            out.line("no tables");
            return;
        }
        let rows = tables.iter().map(|t| {
            let public = |c: &Column| if c.public { " public" } else { "" };
            let columns: Vec<String> =
                t.columns().iter().map(|c| format!("{} {}{}", c.name, c.ty, public(c))).collect();
            vec![t.name().to_owned(), t.key().join(", "), columns.join(", ")]
        });
        out.table(&["table", "key", "columns"], rows);
    });
    Ok(())
}

async fn stats(args: &TableName, home: &Home, out: &Out) -> Result<()> {
    let remote = Remote::open(home, &args.place, &args.unlock, true).await?;
    let database = remote.database(home, &args.place).await?;
    let table = remote::table_named(&database, &args.table).await?;
    let stats = match table.stats().await {
        Ok(stats) => stats,
        Err(e) => return Err(remote::failure_of(&database, e, "cannot read how the table stands").await),
    };
    let members = database.committee().map_or(0, |c| c.members.len());
    let segments: Vec<Value> = stats
        .segments
        .iter()
        .map(|s| json!({ "root": s.root, "rows": s.rows, "cells": s.cells, "bytes": s.bytes() }))
        .collect();
    let provable = RangeSumShape::for_live(stats.segments.len()).is_some();
    let value = json!({
        "table": table.schema().name(), "db": database.id(), "height": stats.height, "root": stats.root, "version": stats.version,
        "rows": stats.rows, "stored_rows": stats.stored_rows(), "dead_rows": stats.dead_rows(), "bytes": stats.bytes(),
        "amplification": stats.amplification(), "members": members, "segments": segments,
        "database_bytes": stats.database_cells * fluence_client::seal::CELL_BYTES as u64,
        "limits": { "live_segments": LIVE_SEGMENTS_MAX, "rows_of_a_segment": SEGMENT_ROWS_MAX, "merged_from": MERGED_FROM, "provable": provable },
    });
    out.result(&value, |out| show(&stats, table.schema().name(), members, provable, out));
    Ok(())
}

fn show(stats: &TableStats, name: &str, members: usize, provable: bool, out: &Out) {
    let count = output::count;
    let live = stats.segments.len();
    out.line(format!("table {} at height {}, version {}", out.bold(name), stats.height, stats.version));
    out.line(format!("  rows           {}", count(stats.rows)));
    out.line(format!("  dead rows      {} (retracted rows and their retractions)", count(stats.dead_rows())));
    out.line(format!("  stored rows    {}", count(stats.stored_rows())));
    out.line(format!(
        "  amplification  {}",
        stats.amplification().map_or_else(|| "-".to_owned(), |a| format!("{a:.2}"))
    ));
    out.line(format!(
        "  bytes          {} on each of {members} members, beside 2 % for the tree",
        output::bytes(stats.bytes())
    ));
    out.line(format!("  segments       {live} of at most {LIVE_SEGMENTS_MAX}"));
    if live > 0 {
        let rows = stats.segments.iter().map(|s| vec![output::short(s.root), count(s.rows), output::bytes(s.bytes())]);
        out.table(
            &["  segment", "rows", "bytes"],
            rows.map(|mut row| {
                row[0].insert_str(0, "  ");
                row
            }),
        );
    }
    out.note(out.dim(&format!(
        "appends and SQL merge all segments when a {}th would come, group commits some from {MERGED_FROM} on, imports some at {LIVE_SEGMENTS_MAX}; a segment holds {} rows at most",
        LIVE_SEGMENTS_MAX + 1,
        count(SEGMENT_ROWS_MAX as u64)
    )));
    if !provable {
        out.note("a proof of a sum (query --prove) reaches fewer segments: fluence table compact");
    } else if stats.dead_rows() > stats.rows {
        out.note(format!("most of what is stored is dead: fluence table compact {name} merges it away"));
    }
}

async fn compact(args: &TableName, home: &Home, out: &Out) -> Result<()> {
    let remote = Remote::open(home, &args.place, &args.unlock, true).await?;
    let database = remote.database(home, &args.place).await?;
    let table = remote::table_named(&database, &args.table).await?;
    let bar = out.progress("merging", "", 0);
    let done = remote::watched(&database, out, table.compact()).await;
    bar.done();
    let name = table.schema().name();
    let committed = match done {
        Ok(committed) => committed,
        Err(e) => return Err(remote::failure_of(&database, e, "the table was not compacted").await),
    };
    let value = match &committed {
        Some(c) => {
            json!({ "table": name, "compacted": true, "rows": c.rows, "segments": c.segments, "height": c.height, "version": c.version })
        }
        None => json!({ "table": name, "compacted": false, "why": "at most one live segment, and no dead rows" }),
    };
    out.result(&value, |out| match &committed {
        Some(c) => out.line(format!(
            "{} rows in {} segments, certified at height {}",
            output::count(c.rows),
            c.segments.len(),
            c.height
        )),
        None => out.line("nothing to merge: at most one live segment, and no dead rows"),
    });
    Ok(())
}
