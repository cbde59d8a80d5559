//! Exports and their manifests: what holds, and every lie that is caught; streams, statistics, imports in parts.

use crate::data::{Plain, batches, csv, hour, schema};
use crate::flows::{Flights, database, imported};
use crate::local::Net;
use fluence_client::export::{self, ExportFileError, RowDigests, RowsDiffer, Written};
use fluence_client::files::{Format, WriteOptions, Writer};
use fluence_client::{ClientError, KeyRange, Select};
use fluence_crypto::secret::Secret;
use fluence_crypto::sign::{self, OwnerKey};
use fluence_crypto::vote;
use fluence_types::export::{EXPORT_BATCH_ROWS, ExportEvidence, ExportManifest, ExportStatement, ExportedFile};
use fluence_types::limits::{ANSWER_BYTES_MAX, LIVE_SEGMENTS_MAX};
use fluence_types::{CommitteeHash, ContentHash, Height, codec};
use fluence_verifier::answer::AnswerError;
use fluence_verifier::committee::Committee;
use fluence_verifier::export::{CheckedExport, ExportError, ExportTrust, TrustedCommittee, check, read};
use futures::executor::block_on;
use std::path::{Path, PathBuf};

/// Exports all rows to a file as the command does.
async fn exported(table: &Flights, path: &Path, format: Format) -> (ExportManifest, Vec<arrow_array::RecordBatch>) {
    let evidenced = table.evidence().await.unwrap();
    let mut writer = Writer::new(Vec::new(), format, table.schema().arrow(), options()).unwrap();
    let (mut digests, mut all) = (RowDigests::default(), Vec::new());
    let mut rows = table.stream(evidenced.live(), &Select::range(KeyRange::ALL)).await.unwrap();
    while let Some(batch) = rows.next().await.unwrap() {
        writer.write(&batch).unwrap();
        digests.add(&batch);
        all.push(batch);
    }
    let bytes = writer.finish().unwrap();
    std::fs::write(path, &bytes).unwrap();
    let blake3 = ContentHash::from_bytes(*blake3::hash(&bytes).as_bytes());
    let file =
        ExportedFile { format: format.name().to_owned(), null: options().null, bytes: bytes.len() as u64, blake3 };
    let written = Written { columns: table.schema().columns().to_vec(), range: None, digests, file };
    (table.manifest(evidenced, written).unwrap(), all)
}

fn options() -> WriteOptions {
    WriteOptions { null: "\\N".to_owned() }
}

fn trust(table: &Flights) -> ExportTrust {
    let committee = table.session().trust(&table.db()).unwrap().committee;
    let hash = CommitteeHash::from_bytes(vote::members_hash(&committee.members).unwrap());
    let owner = Some(table.session().address());
    ExportTrust { committee: TrustedCommittee::Hash(hash), owner, min_height: Height(0) }
}

/// Signs a statement as the owner of the table, or as somebody else.
fn resigned(statement: ExportStatement, table: &Flights) -> ExportManifest {
    let signature = table.session().keyring().sign_prehash(sign::export_digest(&statement));
    ExportManifest { format: fluence_types::export::EXPORT_FORMAT.to_owned(), statement, signature }
}

fn dir() -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("rows");
    (dir, file)
}

fn whole(checked: &CheckedExport) -> &ExportStatement {
    checked.statement()
}

#[test]
fn an_export_of_every_format_is_checked_without_the_cluster_and_read_again_with_it() {
    block_on(async {
        for format in [Format::Csv, Format::Parquet, Format::Arrow, Format::JsonLines] {
            let (_net, _node, table, plain) = imported(1500, 600).await;
            table.delete(&KeyRange::prefix(vec![hour(6, 6)]), |_| true).await.unwrap().expect("there are rows");
            let want = Plain::of_batch(&table.select(&Select::range(KeyRange::ALL)).await.unwrap().value);
            assert!(want.0.len() < plain.0.len());
            let (_dir, path) = dir();
            let (manifest, all) = exported(&table, &path, format).await;
            let got: Vec<_> = all.iter().flat_map(|b| Plain::of_batch(b).0).collect();
            assert_eq!(Plain(got).canonical(), want.canonical());
            // As it stands in a file.
            let manifest = read(&serde_json::to_vec(&manifest).unwrap()).unwrap();
            let by_hash = check(manifest.clone(), &trust(&table)).unwrap();
            let committee = table.session().trust(&table.db()).unwrap().committee;
            let known = ExportTrust { committee: TrustedCommittee::Known(committee), ..trust(&table) };
            assert_eq!(check(manifest, &known).unwrap(), by_hash);
            let statement = whole(&by_hash);
            assert_eq!((statement.rows, statement.segments.len()), (want.0.len() as u64, 4));
            assert!(by_hash.stored_rows() > statement.rows, "retractions are stored rows");
            export::check_file(&path, statement, |_| {}).unwrap();
            // The rows of the segments again, after somebody has added others.
            table.append(&all[0].slice(0, 1)).await.unwrap();
            assert!(table.has_segments_of(statement).await.unwrap());
            let live: Vec<_> = statement.segments.iter().map(|s| s.root).collect();
            let mut again = RowDigests::default();
            let mut rows = table.stream(&live, &Select::range(KeyRange::ALL)).await.unwrap();
            while let Some(batch) = rows.next().await.unwrap() {
                again.add(&batch);
            }
            again.compare(statement).unwrap();
        }
    });
}

#[test]
fn an_empty_table_has_a_manifest_too() {
    block_on(async {
        let (net, nodes) = Net::of(&[1]);
        let table = database(&net, &nodes).await.create_table(schema()).await.unwrap();
        let (_dir, path) = dir();
        let (manifest, _) = exported(&table, &path, Format::Parquet).await;
        let checked = check(manifest, &trust(&table)).unwrap();
        assert_eq!((checked.statement().rows, checked.stored_rows()), (0, 0));
        export::check_file(&path, checked.statement(), |_| {}).unwrap();
    });
}

#[test]
fn every_lie_in_a_manifest_is_refused_and_named() {
    block_on(async {
        let (_net, _node, table, _) = imported(1500, 600).await;
        let (_dir, path) = dir();
        let (old, _) = exported(&table, &path, Format::Csv).await;
        table.delete(&KeyRange::prefix(vec![hour(6, 6)]), |_| true).await.unwrap().expect("there are rows");
        let (good, _) = exported(&table, &path, Format::Csv).await;
        let trusted = trust(&table);
        check(good.clone(), &trusted).unwrap();

        let evidence = |s: &ExportStatement| -> ExportEvidence {
            codec::decode("evidence", &s.evidence, ANSWER_BYTES_MAX).unwrap()
        };
        // The owner lies, and signs it.
        type Lie = Box<dyn Fn(&mut ExportStatement)>;
        let old_statement = old.statement.clone();
        let (old_evidence, old_height, old_root) =
            (old_statement.evidence.clone(), old_statement.height, old_statement.root);
        let mixed = {
            // The newer certificate over the older catalogue entry.
            let (mut mixed, older) = (evidence(&good.statement), evidence(&old_statement));
            let certificate = mixed.answer.snapshot.certificate.clone();
            mixed.answer = older.answer;
            mixed.answer.snapshot.certificate = certificate;
            mixed.encode()
        };
        let lies: Vec<(&str, &str, Lie)> = vec![
            ("a segment left out", "segments", Box::new(|s| drop(s.segments.remove(1)))),
            ("segments in another order", "segments", Box::new(|s| s.segments.swap(0, 1))),
            ("fewer rows in a segment", "number of rows of a segment", Box::new(|s| s.segments[0].rows -= 1)),
            ("another commitment", "commitment", Box::new(|s| s.segments[0].commitment.cells += 1)),
            ("more rows than there are", "number of rows", Box::new(|s| s.rows += 1_000_000)),
            ("a later height", "height", Box::new(|s| s.height.0 += 1)),
            ("another root", "root", Box::new(move |s| s.root = old_root)),
            ("another version", "version", Box::new(|s| s.version.0 -= 1)),
            ("another table", "table", Box::new(|s| s.table_id.0 += 1)),
            ("another schema", "schema", Box::new(|s| s.schema = fluence_types::SchemaHash::from_bytes([1; 32]))),
            ("another projection", "projection", Box::new(|s| s.projection.0 += 1)),
            ("another database", "database", Box::new(|s| s.db = fluence_types::DatabaseId::from_bytes([9; 16]))),
            ("no batches", "number of batches", Box::new(|s| s.batches.clear())),
            ("longer batches", "batch", Box::new(|s| s.batch_rows *= 2)),
            (
                "an older root as if it were this height",
                "version",
                Box::new(move |s| s.evidence = old_evidence.clone()),
            ),
            (
                "an older catalogue under a newer certificate",
                "root",
                Box::new(move |s| {
                    let (height, root) = (s.height, s.root);
                    *s = old_statement.clone();
                    (s.height, s.root, s.evidence) = (height, root, mixed.clone());
                }),
            ),
            ("evidence that is cut short", "malformed", Box::new(|s| s.evidence.truncate(s.evidence.len() - 1))),
        ];
        for (name, word, lie) in lies {
            let mut statement = good.statement.clone();
            lie(&mut statement);
            assert_ne!(statement, good.statement, "{name}");
            let error = check(resigned(statement, &table), &trusted).expect_err(name).to_string();
            assert!(error.contains(word), "{name}: {error}");
        }
        // The old manifest holds for its height, and not for a newer one.
        check(old.clone(), &trusted).unwrap();
        let newer = ExportTrust { min_height: Height(old_height.0 + 1), ..trusted.clone() };
        assert!(matches!(check(old, &newer), Err(ExportError::OldHeight { .. })));

        // Changed after it was signed; signed by another; by another than it says.
        let mut changed = good.clone();
        changed.statement.table = "other".to_owned();
        assert!(matches!(check(changed, &trusted), Err(ExportError::Signature(_))));
        let thief = OwnerKey::new(&Secret::new([5; 32])).unwrap();
        let mut stolen = good.statement.clone();
        stolen.owner = thief.address();
        let signature = thief.sign_prehash(sign::export_digest(&stolen));
        let stolen = ExportManifest { format: good.format.clone(), statement: stolen, signature };
        assert!(matches!(check(stolen.clone(), &trusted), Err(ExportError::Signature(_))));
        // Where nobody says who the owner is, that much is true: whoever signed it says so.
        check(stolen, &ExportTrust { owner: None, ..trusted.clone() }).unwrap();
        let mut other = good.clone();
        other.format = "fluence-export/2".to_owned();
        assert!(matches!(check(other, &trusted), Err(ExportError::Malformed(_))));
    });
}

#[test]
fn a_foreign_certificate_is_refused() {
    block_on(async {
        let (_net, _node, table, _) = imported(300, 200).await;
        let (net, nodes) = Net::of(&[7]);
        let foreign = database(&net, &nodes).await.create_table(schema()).await.unwrap();
        let (_dir, path) = dir();
        let (manifest, _) = exported(&table, &path, Format::Csv).await;
        // Against another cluster than the one that certified it.
        let error = check(manifest.clone(), &ExportTrust { owner: None, ..trust(&foreign) }).unwrap_err();
        assert!(matches!(error, ExportError::Committee { .. }), "{error}");
        let other = foreign.session().trust(&foreign.db()).unwrap().committee;
        let known = ExportTrust { committee: TrustedCommittee::Known(other), ..trust(&table) };
        assert!(matches!(check(manifest.clone(), &known), Err(ExportError::Committee { .. })));
        // The members that are trusted, over a certificate that a foreign node signed.
        let mut evidence: ExportEvidence =
            codec::decode("evidence", &manifest.statement.evidence, ANSWER_BYTES_MAX).unwrap();
        evidence.answer.snapshot.certificate = nodes[0].certify(evidence.answer.snapshot.certificate.header.clone());
        let mut statement = manifest.statement.clone();
        statement.evidence = evidence.encode();
        let error = check(resigned(statement, &table), &trust(&table)).unwrap_err();
        assert!(matches!(error, ExportError::Evidence(AnswerError::Certificate { .. })), "{error}");
        // A committee that is over.
        let committee = table.session().trust(&table.db()).unwrap().committee;
        let later = Committee { since: 1000, ..committee };
        let over = ExportTrust { committee: TrustedCommittee::Known(later), ..trust(&table) };
        assert!(matches!(check(manifest, &over), Err(ExportError::Evidence(AnswerError::OldCommittee { .. }))));
    });
}

/// A file that is not the exported one: by its bytes; and, where the manifest was made to fit its bytes, by its rows.
#[test]
fn rows_changed_dropped_or_added_are_caught() {
    block_on(async {
        let (_net, _node, table, _) = imported(500, 600).await;
        let (_dir, path) = dir();
        let (manifest, _) = exported(&table, &path, Format::Csv).await;
        let statement = manifest.statement.clone();
        let text = std::fs::read_to_string(&path).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        let joined = |lines: &[&str]| lines.iter().map(|l| format!("{l}\n")).collect::<String>();
        let changed = text.replacen("N1", "N2", 1);
        let mut dropped = lines.clone();
        dropped.remove(7);
        let mut added = lines.clone();
        added.insert(9, lines[9]);
        let mut swapped = lines.clone();
        swapped.swap(3, 400);
        for (name, forged) in [
            ("changed", changed),
            ("dropped", joined(&dropped)),
            ("added", joined(&added)),
            ("swapped", joined(&swapped)),
        ] {
            assert_ne!(forged, text, "{name}");
            std::fs::write(&path, &forged).unwrap();
            let error = export::check_file(&path, &statement, |_| {}).expect_err(name);
            assert!(matches!(error, ExportFileError::Bytes { .. }), "{name}: {error}");
            let mut fitted = statement.clone();
            fitted.file.bytes = forged.len() as u64;
            fitted.file.blake3 = ContentHash::from_bytes(*blake3::hash(forged.as_bytes()).as_bytes());
            let error = export::check_file(&path, &fitted, |_| {}).expect_err(name);
            assert!(matches!(error, ExportFileError::Rows(_)), "{name}: {error}");
        }
        assert!(export::check_file(&path.with_extension("nowhere"), &statement, |_| {}).is_err());
    });
}

#[test]
fn digests_name_the_batch_that_differs() {
    let schema = fluence_client::TableSchema::new(
        "t",
        vec![fluence_client::Column::new("n", fluence_client::ColumnType::Int64)],
        &["n"],
        vec![],
    )
    .unwrap();
    let digests = |numbers: Vec<i64>| {
        let column: arrow_array::ArrayRef = std::sync::Arc::new(arrow_array::Int64Array::from(numbers));
        let mut digests = RowDigests::default();
        digests.add(&arrow_array::RecordBatch::try_new(schema.arrow(), vec![column]).unwrap());
        digests
    };
    let rows = EXPORT_BATCH_ROWS as i64 * 2 + 5;
    let all: Vec<i64> = (0..rows).collect();
    block_on(async {
        let (net, nodes) = Net::of(&[1]);
        let table = database(&net, &nodes).await.create_table(crate::data::schema()).await.unwrap();
        let (_dir, path) = dir();
        let (mut manifest, _) = exported(&table, &path, Format::Csv).await;
        let statement = &mut manifest.statement;
        (statement.rows, statement.batches) = (rows as u64, digests(all.clone()).finish());
        assert_eq!(statement.batches.len(), 3);
        digests(all.clone()).compare(statement).unwrap();
        let mut changed = all.clone();
        changed[EXPORT_BATCH_ROWS as usize + 1] = -1;
        let first = EXPORT_BATCH_ROWS + 1;
        let differs = RowsDiffer::Batch { first, last: first + EXPORT_BATCH_ROWS - 1 };
        assert_eq!(digests(changed).compare(statement), Err(differs));
        let fewer = digests(all[..all.len() - 1].to_vec());
        let want = rows as u64;
        assert_eq!(fewer.compare(statement), Err(RowsDiffer::Count { got: want - 1, want }));
    });
}

#[test]
fn statistics_count_rows_that_are_dead() {
    block_on(async {
        let (_net, _node, table, plain) = imported(1500, 600).await;
        let before = table.stats().await.unwrap();
        assert_eq!((before.rows, before.dead_rows(), before.segments.len()), (plain.0.len() as u64, 0, 3));
        assert_eq!(before.amplification(), Some(1.0));
        let deleted = table.delete(&KeyRange::prefix(vec![hour(6, 6)]), |_| true).await.unwrap().unwrap().rows;
        let after = table.stats().await.unwrap();
        assert_eq!((after.rows, after.dead_rows()), (before.rows - deleted, 2 * deleted));
        assert!(after.bytes() > before.bytes() && after.database_cells >= after.bytes() / 256);
        table.compact().await.unwrap().expect("there is something to merge");
        let compacted = table.stats().await.unwrap();
        assert_eq!((compacted.rows, compacted.dead_rows(), compacted.segments.len()), (after.rows, 0, 1));
        table.clear().await.unwrap();
        let empty = table.stats().await.unwrap();
        assert_eq!((empty.rows, empty.bytes(), empty.amplification()), (0, 0, None));
    });
}

#[test]
fn parts_of_an_import_are_merged_where_the_table_is_full() {
    block_on(async {
        let (net, nodes) = Net::of(&[1]);
        let table = database(&net, &nodes).await.create_table(schema()).await.unwrap();
        let text = csv(2400, 3);
        let all: Vec<_> = batches(&text).map(Result::unwrap).collect();
        let all = all.into_iter().next().unwrap();
        let mut repeated = 0;
        for at in (0..2400).step_by(100) {
            let part = table.seal_part(&[all.slice(at, 100)], |_| {}).await.unwrap();
            let root = part.root();
            table.make_room().await.unwrap();
            let committed = table.commit_part(part).await.unwrap();
            assert_eq!((committed.rows, &committed.segments[..]), (100, &[root][..]));
            repeated += committed.seal.repeated_keys;
            assert!(table.stats().await.unwrap().segments.len() <= LIVE_SEGMENTS_MAX);
        }
        // Rows that the file has twice over, in one part.
        assert!(repeated > 0);
        let stats = table.stats().await.unwrap();
        assert_eq!((stats.rows, stats.dead_rows()), (2400, 0));
        let got = Plain::of_batch(&table.select(&Select::range(KeyRange::ALL)).await.unwrap().value);
        assert_eq!(got.canonical(), Plain::of(&text).canonical());
    });
}

#[test]
fn a_stream_whose_segments_are_merged_away_ends_in_an_error() {
    block_on(async {
        let (_net, _node, table, _) = imported(1500, 600).await;
        let evidenced = table.evidence().await.unwrap();
        let mut rows = table.stream(evidenced.live(), &Select::range(KeyRange::ALL)).await.unwrap();
        table.compact().await.unwrap().unwrap();
        let error = loop {
            match rows.next().await {
                Ok(Some(_)) => {}
                Ok(None) => panic!("it ended as if nothing had been"),
                Err(error) => break error,
            }
        };
        assert!(matches!(error, ClientError::Op(fluence_types::op::OpRefusal::NotLive(_))), "{error}");
    });
}
