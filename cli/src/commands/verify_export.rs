//! `fluence verify-export`: is this file what that manifest says, and what does the manifest show?
//!
//! Rule    exit code 0 only where the root is certified by a committee that did not come with the manifest: named by its hash, or known to the
//!         owner's keystore. Then the file is compared byte by byte and row by row. Only with --recompute are the rows themselves compared
//!         with the cluster's, because only the owner's keys open them. The output says which of these was done.

use crate::args::VerifyExport;
use crate::commands::export::manifest_of;
use crate::commands::keys;
use crate::error::{Context, Failure, Help, Result};
use crate::home::Home;
use crate::output::{self, Out};
use crate::remote::{self, Remote};
use crate::values;
use fluence_client::export::{self, ExportFileError, RowDigests};
use fluence_client::{Keystore, Select};
use fluence_types::export::{ExportManifest, ExportStatement, MANIFEST_BYTES_MAX};
use fluence_types::{Address, CommitteeHash, Height};
use fluence_verifier::export::{CheckedExport, ExportError, ExportTrust, TrustedCommittee, check, read};
use serde_json::json;
use std::io::Read;
use std::path::Path;

pub(crate) async fn run(args: &VerifyExport, home: &Home, out: &Out) -> Result<()> {
    let path = args.manifest.clone().unwrap_or_else(|| manifest_of(&args.file));
    let manifest = read_manifest(&path)?;
    let (trust, keystore) = trust(args, home, &manifest)?;
    let by_keys = matches!(trust.committee, TrustedCommittee::Known(_));
    let checked = check(manifest, &trust).map_err(|e| refusal(&path, e))?;
    let statement = checked.statement();
    let bar = out.progress("comparing rows", "rows", statement.rows);
    let compared = export::check_file(&args.file, statement, |rows| bar.set(rows, statement.rows.max(rows)));
    bar.done();
    compared.map_err(|e| file_refusal(&args.file, e))?;
    let recomputed = match (args.recompute, keystore) {
        (true, Some(keystore)) => recompute(args, keystore, statement, home, out).await.map(|()| true)?,
        _ => false,
    };
    report(&checked, args, by_keys, recomputed, out);
    Ok(())
}

fn read_manifest(path: &Path) -> Result<ExportManifest> {
    let bytes = || -> std::io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        std::fs::File::open(path)?.take(MANIFEST_BYTES_MAX as u64 + 1).read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    let bytes = bytes().doing(format!("cannot read {}", path.display())).or_help("--manifest FILE names it")?;
    read(&bytes)
        .refused(format!("{} is not a manifest", path.display()))
        .or_help("docs/protocol/export.md describes the format")
}

/// What the caller trusts: a committee named by its hash, else the one that the owner's keystore knows.
fn trust(args: &VerifyExport, home: &Home, manifest: &ExportManifest) -> Result<(ExportTrust, Option<Keystore>)> {
    let min_height = Height(args.min_height);
    let owner =
        args.owner.as_deref().map(|text| text.parse::<Address>().usage("--owner is not an address")).transpose()?;
    if let Some(text) = &args.committee {
        let hash: CommitteeHash = text
            .parse()
            .usage("--committee is not a hash")
            .or_help("0x and 64 hex digits, as `fluence cluster members` prints it")?;
        return Ok((ExportTrust { committee: TrustedCommittee::Hash(hash), owner, min_height }, None));
    }
    let none = "there is no committee to check the manifest against";
    let help = "name the one you trust by its hash: --committee 0x..; the manifest's own shows nothing";
    if !home.keystore().exists() {
        return Err(Failure::refused(none).help(help));
    }
    let keystore = keys::open(home, &args.unlock)?;
    let Some(known) = keystore.state.databases.get(&manifest.statement.db) else {
        let what = format!("database {} is not known here", manifest.statement.db);
        return Err(Failure::refused(none).because(what).help(help));
    };
    let committee = TrustedCommittee::Known(known.committee());
    let owner = Some(owner.unwrap_or_else(|| keystore.keyring().address()));
    Ok((ExportTrust { committee, owner, min_height }, Some(keystore)))
}

fn refusal(path: &Path, error: ExportError) -> Failure {
    let help = match &error {
        ExportError::Committee { .. } => {
            "another committee certified it: of an earlier or later time, or of a cluster that you do not trust. Its hash at the time is what --committee names"
        }
        ExportError::OldHeight { .. } => "ask for a newer export, or lower --min-height",
        ExportError::Signature(_) => "somebody else signed it, or it was changed since",
        _ => "the manifest was changed, or never was true; do not rely on it",
    };
    Failure::refused(format!("{} is refused", path.display())).because(error).help(help)
}

fn file_refusal(path: &Path, error: ExportFileError) -> Failure {
    let what = format!("{} is refused", path.display());
    match error {
        ExportFileError::File(fluence_client::files::FileError::Io { .. }) => {
            Failure::failed(format!("cannot read {}", path.display())).because(error).help("check the path")
        }
        error => Failure::refused(what)
            .because(error)
            .help("the file is not the one that the manifest is about; do not rely on it"),
    }
}

/// Reads the rows of the manifest's segments from the cluster again, and compares them with it.
async fn recompute(
    args: &VerifyExport,
    keystore: Keystore,
    statement: &ExportStatement,
    home: &Home,
    out: &Out,
) -> Result<()> {
    let remote = Remote::of(keystore, home, &args.place, true)?;
    let session = remote.session();
    let database = session.database(statement.db).map_err(|e| remote::failure(e, "cannot open the database"))?;
    let table = database.table(&statement.table).await.map_err(|e| remote::failure(e, "cannot open the table"))?;
    let failed = async |error, what| remote::failure_of(&database, error, what).await;
    match table.has_segments_of(statement).await {
        Ok(true) => {}
        Ok(false) => {
            return Err(Failure::failed("the segments that were exported are no longer live: rows of them were merged since, and nodes open them no more")
                .help("what the manifest shows stands without --recompute; to compare rows, export the table again"));
        }
        Err(error) => return Err(failed(error, "cannot look at the table").await),
    }
    let range = statement.range.as_ref();
    let range = values::key_range(
        table.schema(),
        range.and_then(|r| r.from.as_deref()),
        range.and_then(|r| r.to.as_deref()),
        range.and_then(|r| r.prefix.as_deref()),
    )?;
    let columns = statement.columns.iter().map(|c| c.name.clone()).collect();
    let select = Select { columns, ..Select::range(range) };
    let live: Vec<_> = statement.segments.iter().map(|s| s.root).collect();
    let what = "the rows were not read again";
    let mut rows = match table.stream(&live, &select).await {
        Ok(rows) => rows,
        Err(error) => return Err(failed(error, what).await),
    };
    let bar = out.progress("reading the rows again", "rows", statement.rows);
    let mut digests = RowDigests::default();
    loop {
        match rows.next().await {
            Ok(Some(batch)) => digests.add(&batch),
            Ok(None) => break,
            Err(error) => return Err(failed(error, what).await),
        }
        bar.set(digests.rows(), statement.rows.max(digests.rows()));
    }
    bar.done();
    let differ = |e| {
        Failure::refused("the manifest does not say what its segments hold")
            .because(e)
            .help("whoever signed it wrote other rows than the table had; do not rely on it")
    };
    digests.compare(statement).map_err(differ)
}

fn report(checked: &CheckedExport, args: &VerifyExport, by_keys: bool, recomputed: bool, out: &Out) {
    let s = checked.statement();
    let whole = s.range.is_none();
    let value = json!({
        "verified": true, "recomputed": recomputed, "whole_table": whole, "table": s.table, "db": s.db, "owner": s.owner,
        "owner_was_named": by_keys || args.owner.is_some(), "height": s.height, "root": s.root, "version": s.version,
        "segments": s.segments.len(), "stored_rows": checked.stored_rows(), "rows": s.rows, "committee": s.committee,
    });
    out.result(&value, |out| {
        let rows = output::count(s.rows);
        out.line(format!("{}  {} is the file of {rows} rows that the manifest is about", out.green("verified"), args.file.display()));
        out.line(format!(
            "  shown  by the committee: at height {}, table {} of database {} was exactly {} segments of {} rows, retractions among them",
            s.height, s.table_id, s.db, s.segments.len(), output::count(checked.stored_rows())
        ));
        let what = if whole { "all rows" } else { "a range of the rows" };
        out.line(match recomputed {
            true => format!("  shown  with your keys: the file holds {what} of these segments, read from the cluster again"),
            false => format!("  said   by {}, who signed it: the file holds {what} of these segments, of table {:?}", s.owner, s.table),
        });
        if !by_keys && args.owner.is_none() {
            out.warn("nobody said who the owner is (--owner): anybody can sign such a manifest about segments that are public");
        }
    });
}
