use super::*;
use crate::keyring::{Keyring, Phrase};
use crate::keystore::{Keystore, Passphrase, WorkFactor};
use crate::open::{OpenError, SegmentView};
use crate::schema::{Column, SumExpr, TableSchema};
use crate::value::{ColumnBuilder, Value};
use fluence_crypto::roots;
use rand::SeedableRng;
use rand::rngs::StdRng;
use std::collections::HashMap;
use std::sync::Mutex;

const DB: DatabaseId = DatabaseId::from_bytes([1; 16]);

fn schema() -> TableSchema {
    let columns = vec![
        Column::new("id", ColumnType::Int64),
        Column::nullable("v", ColumnType::Int64),
        Column::new("t", ColumnType::Text),
    ];
    TableSchema::new("t", columns, &["id"], SumExpr::variance("v").to_vec()).unwrap()
}

fn table_keys(keyring: Keyring) -> TableKeys {
    let keyring = Arc::new(keyring);
    // One sealed schema for all clients, as the nodes keep it.
    let public = keyring.seal_schema(&DB, &TableId(0), &schema(), &mut StdRng::seed_from_u64(5)).unwrap();
    let table = keyring.open_schema(&DB, &TableId(0), &public).unwrap();
    assert_eq!(table.hash, roots::schema_hash(&public));
    TableKeys::new(keyring, DB, TableId(0), Arc::new(table))
}

fn rows(n: i64) -> RecordBatch {
    let schema = schema();
    let mut builders: Vec<_> = schema.columns().iter().map(|c| ColumnBuilder::new(c.ty, 0)).collect();
    for i in 0..n {
        let id = i * 7919 % n;
        let v = if id % 5 == 0 { Value::Null } else { Value::Int64(id - 100) };
        for (b, v) in builders.iter_mut().zip([Value::Int64(id), v, Value::Text(format!("row {id}"))]) {
            assert!(b.push(&v));
        }
    }
    RecordBatch::try_new(schema.arrow(), builders.into_iter().map(ColumnBuilder::finish).collect()).unwrap()
}

fn seal(keys: &TableKeys, batch: &RecordBatch, rng: &mut StdRng, uses: Option<&Arc<Mutex<Vec<Use>>>>) -> SealedSegment {
    let mut sealer = Sealer::new(keys.clone());
    sealer.recorder = uses.cloned();
    sealer.push(batch).unwrap();
    sealer.seal(rng).unwrap()
}

#[test]
fn no_key_nonce_or_mask_label_repeats() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("keys.age");
    let pass = Passphrase::new("p".to_owned()).unwrap();
    let keyring = Keyring::generate(&mut StdRng::seed_from_u64(1));
    let phrase = keyring.phrase().expose(str::to_owned);
    Keystore::create(&path, &pass, keyring, WorkFactor::TEST).unwrap();
    let client = || table_keys(Keyring::from_phrase(&Phrase::new(phrase.clone())).unwrap());

    let uses = Arc::new(Mutex::new(Vec::new()));
    let batch = rows(700);
    let mut ids = Vec::new();
    let mut sealed = |keys: &TableKeys, batch: &RecordBatch, rng: &mut StdRng| {
        ids.push(seal(keys, batch, rng, Some(&uses)).id());
    };
    let first = client();
    let mut rng = StdRng::seed_from_u64(10);
    // The same rows twice by one client.
    sealed(&first, &batch, &mut rng);
    sealed(&first, &batch, &mut rng);
    // A crash: the process starts again with fresh randomness and does the same act.
    sealed(&client(), &batch, &mut StdRng::seed_from_u64(11));
    // The keystore restored from its file, and from the phrase, on other machines.
    let opened = Keystore::open(&path, &pass).unwrap();
    let copy = Keyring::from_phrase(&opened.keyring().phrase()).unwrap();
    sealed(&table_keys(copy), &batch, &mut StdRng::seed_from_u64(12));
    sealed(&client(), &batch, &mut StdRng::seed_from_u64(13));
    // Two clients, one of which has a machine snapshot's repeated randomness: other rows under the same random bytes.
    sealed(&client(), &rows(699), &mut StdRng::seed_from_u64(13));

    let mut seen: HashMap<Use, usize> = HashMap::new();
    for u in uses.lock().unwrap().iter() {
        *seen.entry(*u).or_default() += 1;
    }
    let repeated = seen.values().filter(|n| **n > 1).count();
    let count = |f: fn(&Use) -> bool| seen.keys().filter(|u| f(u)).count();
    let (keys, labels, masks) = (
        count(|u| matches!(u, Use::Key(_))),
        count(|u| matches!(u, Use::Label(..))),
        count(|u| matches!(u, Use::Mask(_))),
    );
    println!("{} segments: {keys} keys, {labels} mask labels, {masks} masks, {repeated} repeated", ids.len());
    assert_eq!(repeated, 0);
    // Per segment: 4 byte lanes and the fences, 3 groups each; 2 lanes for the 4 sums, a label a row.
    assert_eq!(keys, 6 * 5 * 3);
    assert_eq!(labels, (5 * 700 + 699) * 2);
    assert_eq!(masks, labels);
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), 6);
}

#[test]
fn the_recorder_would_see_a_repetition() {
    // The same randomness and the same rows make the same segment, byte for byte: nothing new is encrypted, and the recorder notices.
    let uses = Arc::new(Mutex::new(Vec::new()));
    let keys = table_keys(Keyring::generate(&mut StdRng::seed_from_u64(1)));
    let a = seal(&keys, &rows(10), &mut StdRng::seed_from_u64(2), Some(&uses));
    let b = seal(&keys, &rows(10), &mut StdRng::seed_from_u64(2), Some(&uses));
    assert_eq!(a.cells(), b.cells());
    // Lanes are sealed in parallel, so the order within a segment is any.
    let mut seen: HashMap<Use, usize> = HashMap::new();
    uses.lock().unwrap().iter().for_each(|u| *seen.entry(*u).or_default() += 1);
    assert!(!seen.is_empty() && seen.values().all(|times| *times == 2));
}

#[test]
fn a_segment_is_what_its_header_says_and_its_bytes_come_in_any_pieces() {
    let keys = table_keys(Keyring::generate(&mut StdRng::seed_from_u64(1)));
    let segment = seal(&keys, &rows(700), &mut StdRng::seed_from_u64(2), None);
    let header = SegmentHeader::from_cells(segment.cells()).unwrap();
    assert_eq!(&header, segment.header());
    assert_eq!(header.segment_cells(), segment.cells().len() as u64);
    assert_eq!(header.lanes.len(), 6);
    let all: Vec<u8> = segment.cells().iter().flatten().flat_map(|s| s.to_bytes()).collect();
    assert_eq!(all.len() as u64, segment.byte_len());
    for (offset, len) in
        [(0, 100), (100, 1000), (255, 2), (256, 256), (all.len() as u64 - 5, 100), (all.len() as u64, 9)]
    {
        let end = all.len().min(offset as usize + len);
        assert_eq!(segment.bytes(offset, len), &all[offset as usize..end], "{offset} {len}");
    }
    assert_eq!(segment.stats().permutations, permutations(segment.preimage().cells));
    assert_eq!((permutations(1), permutations(8), permutations(9)), (1, 9, 9 + 2 + 1));
}

#[test]
fn a_row_costs_a_few_kilobytes_and_its_values_are_nowhere_in_clear() {
    let keys = table_keys(Keyring::generate(&mut StdRng::seed_from_u64(1)));
    let one = seal(&keys, &rows(1), &mut StdRng::seed_from_u64(2), None);
    assert!(one.fits_inline() && one.byte_len() < 8 << 10, "{} bytes", one.byte_len());
    let payload: Vec<u8> = one.cells().iter().flatten().flat_map(|s| s.to_bytes()[1..].to_vec()).collect();
    assert!(!payload.windows(5).any(|w| w == b"row 0"));
}

#[test]
fn retractions_look_like_rows() {
    let keys = table_keys(Keyring::generate(&mut StdRng::seed_from_u64(1)));
    let shape = |weight: &dyn Fn(usize) -> i8| {
        let mut sealer = Sealer::new(keys.clone());
        let weights: Vec<i8> = (0..700).map(weight).collect();
        sealer.push_weighted(&rows(700), &weights).unwrap();
        let segment = sealer.seal(&mut StdRng::seed_from_u64(3)).unwrap();
        (segment.header().lanes.clone(), segment.header().blob.block_ends.clone())
    };
    // A node sees the same lengths whether rows were inserted, retracted or both.
    assert_eq!(shape(&|_| 1), shape(&|_| -1));
    assert_eq!(shape(&|_| 1), shape(&|i| if i % 3 == 0 { -1 } else { 1 }));
}

#[test]
fn rejects_what_cannot_be_sealed() {
    let keys = table_keys(Keyring::generate(&mut StdRng::seed_from_u64(1)));
    let mut rng = StdRng::seed_from_u64(2);
    assert!(matches!(Sealer::new(keys.clone()).seal(&mut rng), Err(SealError::Empty)));
    let mut sealer = Sealer::new(keys.clone());
    assert!(matches!(sealer.push_weighted(&rows(3), &[1, 1]), Err(SealError::Weights { weights: 2, rows: 3 })));
    assert!(matches!(sealer.push_weighted(&rows(1), &[2]), Err(SealError::Weights { .. })));
    let two = rows(3).project(&[0, 1]).unwrap();
    assert!(matches!(sealer.push(&two), Err(SealError::Schema(SchemaError::Batch { .. }))));
    let mut text = ColumnBuilder::new(ColumnType::Text, 1);
    assert!(!text.push(&Value::Text("x".repeat(VALUE_BYTES_MAX + 1))), "the builder refuses it already");
    let long: ArrayRef = Arc::new(arrow_array::StringArray::from(vec!["x".repeat(VALUE_BYTES_MAX + 1)]));
    let batch = rows(1);
    let batch =
        RecordBatch::try_new(batch.schema(), vec![Arc::clone(batch.column(0)), Arc::clone(batch.column(1)), long])
            .unwrap();
    assert!(matches!(sealer.push(&batch), Err(SealError::LongValue { bytes, .. }) if bytes == VALUE_BYTES_MAX + 1));
    assert_eq!(sealer.rows(), 0, "nothing was taken");
}

#[test]
fn a_decimal_of_more_digits_than_its_column_is_refused() {
    let ty = ColumnType::Decimal { precision: 3, scale: 1 };
    let schema = TableSchema::new("t", vec![Column::nullable("d", ty)], &["d"], Vec::new()).unwrap();
    let keyring = Arc::new(Keyring::generate(&mut StdRng::seed_from_u64(1)));
    let public = keyring.seal_schema(&DB, &TableId(0), &schema, &mut StdRng::seed_from_u64(5)).unwrap();
    let table = Arc::new(keyring.open_schema(&DB, &TableId(0), &public).unwrap());
    let mut sealer = Sealer::new(TableKeys::new(keyring, DB, TableId(0), table));
    let batch = |values: Vec<Option<i128>>| {
        let values = arrow_array::Decimal128Array::from(values).with_precision_and_scale(3, 1).unwrap();
        RecordBatch::try_new(schema.arrow(), vec![Arc::new(values)]).unwrap()
    };
    sealer.push(&batch(vec![Some(999), None, Some(-999)])).unwrap();
    for past in [1000, -1000, i128::MIN] {
        let error = sealer.push(&batch(vec![Some(1), Some(past)])).unwrap_err();
        assert!(error.to_string().contains("\"d\" is decimal(3,1)"), "{error}");
    }
    assert_eq!(sealer.rows(), 3);
}

#[test]
fn an_integer_of_more_bits_than_its_column_is_refused() {
    let columns = vec![Column::nullable("n", ColumnType::Int64).bits(16)];
    let schema = TableSchema::new("t", columns, &["n"], vec![SumExpr::Column("n".into())]).unwrap();
    assert_eq!(schema.sum_fields().iter().map(|(_, field)| field.bits).collect::<Vec<_>>(), [26, 26, 41]);
    let keyring = Arc::new(Keyring::generate(&mut StdRng::seed_from_u64(1)));
    let public = keyring.seal_schema(&DB, &TableId(0), &schema, &mut StdRng::seed_from_u64(5)).unwrap();
    let table = Arc::new(keyring.open_schema(&DB, &TableId(0), &public).unwrap());
    let mut sealer = Sealer::new(TableKeys::new(keyring, DB, TableId(0), table));
    let batch = |values: Vec<Option<i64>>| {
        RecordBatch::try_new(schema.arrow(), vec![Arc::new(arrow_array::Int64Array::from(values))]).unwrap()
    };
    sealer.push(&batch(vec![Some(65_535), None, Some(-65_535)])).unwrap();
    for past in [65_536, -65_536, i64::MIN] {
        let error = sealer.push(&batch(vec![Some(1), Some(past)])).unwrap_err();
        assert!(error.to_string().contains("\"n\" has integers of 16 bits"), "{error}");
    }
    assert_eq!(sealer.rows(), 3);
    for (ty, bits) in [(ColumnType::Int64, 0), (ColumnType::Int64, 64), (ColumnType::Text, 8)] {
        let refused = TableSchema::new("t", vec![Column::new("n", ty).bits(bits)], &["n"], Vec::new());
        assert_eq!(refused.unwrap_err(), SchemaError::Bits("n".into()));
    }
}

#[test]
fn a_segment_of_more_rows_than_sums_keep_to_their_bits_for_is_refused() {
    let keys = table_keys(Keyring::generate(&mut StdRng::seed_from_u64(1)));
    let segment = seal(&keys, &rows(10), &mut StdRng::seed_from_u64(2), None);
    let mut header = segment.header().clone();
    assert!(SegmentView::new(&keys, segment.root(), header.clone()).is_ok());
    header.rows = SEGMENT_ROWS_MAX as u64 + 1;
    let error = SegmentView::new(&keys, segment.root(), header).unwrap_err();
    assert!(matches!(error, OpenError::TooManyRows { rows: 1_048_577, .. }), "{error}");
}

#[test]
fn what_is_public_stands_in_clear_and_nothing_else_does() {
    let columns = vec![
        Column::new("secret", ColumnType::Text),
        Column::new("id", ColumnType::Int64).public(),
        Column::new("open", ColumnType::Text).public(),
        Column::new("cost", ColumnType::Int64),
    ];
    let sums = vec![SumExpr::Column("id".into()), SumExpr::Column("cost".into())];
    let schema = TableSchema::new("t", columns, &["id"], sums).unwrap();
    let owner = Arc::new(Keyring::generate(&mut StdRng::seed_from_u64(1)));
    let public = owner.seal_schema(&DB, &TableId(0), &schema, &mut StdRng::seed_from_u64(5)).unwrap();
    let table = Arc::new(owner.open_schema(&DB, &TableId(0), &public).unwrap());
    let keys = TableKeys::new(owner, DB, TableId(0), table);
    let texts =
        |what: &str| Arc::new((0..700).map(|i| Some(format!("{what} {i}"))).collect::<arrow_array::StringArray>());
    let ints = || Arc::new((0..700).map(Some).collect::<arrow_array::Int64Array>());
    let arrays: Vec<ArrayRef> = vec![texts("hidden"), ints(), texts("shown"), ints()];
    let batch = RecordBatch::try_new(schema.arrow(), arrays).unwrap();
    let uses = Arc::new(Mutex::new(Vec::new()));
    let segment = seal(&keys, &batch, &mut StdRng::seed_from_u64(2), Some(&uses));

    let payload: Vec<u8> = segment.cells().iter().flatten().flat_map(|s| s.to_bytes()[1..].to_vec()).collect();
    let holds = |text: &str| payload.windows(text.len()).any(|w| w == text.as_bytes());
    assert!(holds("shown 699") && !holds("hidden"));
    // Sealed are two columns of three groups, and a mask a row of the one sealed lane of sums.
    let count = |f: fn(&Use) -> bool| uses.lock().unwrap().iter().filter(|u| f(u)).count();
    assert_eq!(count(|u| matches!(u, Use::Key(_))), 2 * 3);
    assert_eq!(count(|u| matches!(u, Use::Mask(_))), 700);
    let (sum, _) = schema.expr_field(&SumExpr::Column("id".into())).unwrap();
    let lane = segment.header().lane(sum.lane).unwrap();
    let last = segment.cells()[lane.first_cell as usize + 699 / CELL_SCALARS][699 % CELL_SCALARS];
    assert_eq!(sum.of(&crate::sums::centred(&field::from_bytes(&last))), (699 * 700 / 2).into());

    // Whoever has other keys opens it as everyone may; a commitment to a key where none is used is refused, as is one of nothing elsewhere.
    let told = Arc::new(crate::keyring::open_part(&TableId(0), &public).unwrap().unwrap());
    let stranger = TableKeys::new(Arc::new(Keyring::generate(&mut StdRng::seed_from_u64(9))), DB, TableId(0), told);
    for keys in [&keys, &stranger] {
        let view = SegmentView::new(keys, segment.root(), segment.header().clone()).unwrap();
        assert_eq!((view.groups(), view.fence(0).len()), (3, 9));
    }
    let spoilt = |keys: &TableKeys, at: usize| {
        let mut header = segment.header().clone();
        header.blob.key_commitments[at][0] ^= 1;
        SegmentView::new(keys, segment.root(), header).map(|_| ()).unwrap_err()
    };
    for at in [0, 1, 4, 5] {
        for keys in [&keys, &stranger] {
            assert!(matches!(spoilt(keys, at), OpenError::Commitment { .. }), "lane {at}");
        }
    }
    assert!(matches!(spoilt(&keys, 2), OpenError::Commitment { lane: LaneId(2), .. }));
    let mut header = segment.header().clone();
    header.blob.fences.swap(0, 2);
    let refused = SegmentView::new(&stranger, segment.root(), header).unwrap_err();
    assert!(matches!(refused, OpenError::Fences { group: 1, .. }), "{refused}");
}
