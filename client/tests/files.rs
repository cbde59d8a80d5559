//! Files of every format: what is written is read back, foreign types are mapped or refused by name, and damaged files are errors.

use arrow_array::builder::StringDictionaryBuilder;
use arrow_array::types::Int32Type;
use arrow_array::{
    Array, ArrayRef, Date64Array, Decimal128Array, Decimal256Array, FixedSizeBinaryArray, Float32Array, Int16Array,
    LargeStringArray, ListArray, NullArray, RecordBatch, StringViewArray, StructArray, Time64MicrosecondArray,
    TimestampMillisecondArray, TimestampNanosecondArray, TimestampSecondArray, UInt64Array,
};
use arrow_schema::{DataType, Field, Schema};
use fluence_client::csv::CsvOptions;
use fluence_client::files::{
    FileError, Format, Input, LINE_BYTES_MAX, ReadOptions, WriteOptions, Writer, inspect, parquet_writer, read,
};
use fluence_client::value::ColumnBuilder;
use fluence_client::{Column, ColumnType, TableSchema, Value};
use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression, GzipLevel, ZstdLevel};
use parquet::file::properties::{WriterProperties, WriterVersion};
use proptest::prelude::*;
use std::io::{Cursor, Write};
use std::path::Path;
use std::sync::Arc;

const FORMATS: [Format; 4] = [Format::Csv, Format::Parquet, Format::Arrow, Format::JsonLines];

fn schema() -> TableSchema {
    let columns = vec![
        Column::new("n", ColumnType::Int64),
        Column::nullable("d", ColumnType::Decimal { precision: 28, scale: 3 }),
        Column::nullable("x", ColumnType::Float64),
        Column::nullable("t", ColumnType::Text),
        Column::nullable("b", ColumnType::Bool),
        Column::nullable("at", ColumnType::Timestamp),
        Column::nullable("day", ColumnType::Date),
        Column::nullable("raw", ColumnType::Bytes),
    ];
    TableSchema::new("t", columns, &["n"], vec![]).unwrap()
}

fn batch(schema: &TableSchema, rows: &[(i64, u8, String)]) -> RecordBatch {
    let value = |column: usize, (n, nulls, text): &(i64, u8, String)| {
        if column > 0 && nulls >> (column - 1) & 1 == 1 {
            return Value::Null;
        }
        match column {
            0 => Value::Int64(*n),
            1 => Value::Decimal { unscaled: i128::from(*n) * 999_999_937, scale: 3 },
            2 => Value::Float64(f64::from_bits(*n as u64)),
            3 => Value::Text(text.clone()),
            4 => Value::Bool(n % 2 == 0),
            // Of the years 1 to 9999, which text has.
            5 => Value::Timestamp(n % 62_000_000_000_000_000),
            6 => Value::Date((n % 719_000) as i32),
            _ => Value::Bytes(text.bytes().rev().collect()),
        }
    };
    let arrays = schema.columns().iter().enumerate().map(|(i, c)| {
        let mut builder = ColumnBuilder::new(c.ty, rows.len());
        rows.iter().for_each(|row| assert!(builder.push(&value(i, row)), "{:?}", value(i, row)));
        builder.finish()
    });
    RecordBatch::try_new(schema.arrow(), arrays.collect()).unwrap()
}

fn options() -> ReadOptions {
    ReadOptions { csv: CsvOptions { null: "\\N".to_owned(), ..CsvOptions::default() }, sample_rows: None }
}

fn written(schema: &TableSchema, batches: &[RecordBatch], format: Format) -> Vec<u8> {
    let write = WriteOptions { null: "\\N".to_owned() };
    let mut writer = Writer::new(Vec::new(), format, schema.arrow(), write).unwrap();
    batches.iter().for_each(|b| writer.write(b).unwrap());
    writer.finish().unwrap()
}

/// A file with these bytes, gone with the folder.
fn kept(bytes: &[u8]) -> (tempfile::NamedTempFile, Input) {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(bytes).unwrap();
    file.flush().unwrap();
    let input = Input::File(file.path().to_owned());
    (file, input)
}

fn rows_of(batches: impl IntoIterator<Item = RecordBatch>) -> Vec<Vec<String>> {
    let mut rows = Vec::new();
    for batch in batches {
        for row in 0..batch.num_rows() {
            // As keys: NaN differs from itself.
            let cells = batch.columns().iter().map(|c| match Value::at(c, row).unwrap() {
                Value::Float64(x) => format!("{:x}", x.to_bits()),
                other => format!("{other:?}"),
            });
            rows.push(cells.collect());
        }
    }
    rows
}

fn read_all(input: Input, format: Format, schema: &TableSchema) -> Result<Vec<RecordBatch>, FileError> {
    read(input, format, schema, &options())?.collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]
    #[test]
    fn what_is_written_is_read_back(
        rows in proptest::collection::vec((any::<i64>(), any::<u8>(), "[ -~\\n\"é]{0,12}"), 1..40), split in 0..40usize
    ) {
        let schema = schema();
        let rows: Vec<_> = rows.into_iter().filter(|(n, _, t)| t != "\\N" && !f64::from_bits(*n as u64).is_nan()).collect();
        prop_assume!(!rows.is_empty());
        let (a, b) = rows.split_at(split.min(rows.len()));
        let batches: Vec<_> = [a, b].into_iter().filter(|p| !p.is_empty()).map(|p| batch(&schema, p)).collect();
        for format in FORMATS {
            let bytes = written(&schema, &batches, format);
            let (_file, input) = kept(&bytes);
            let found = inspect(&input, format, &options(), &[]).unwrap();
            if matches!(format, Format::Parquet | Format::Arrow) {
                prop_assert_eq!(&found.columns, schema.columns());
            }
            let back = read_all(input, format, &schema).unwrap();
            prop_assert_eq!(rows_of(back), rows_of(batches.clone()), "{}", format);
            if format != Format::Parquet {
                let stream = Input::stream(Cursor::new(bytes)).unwrap();
                prop_assert_eq!(rows_of(read_all(stream, format, &schema).unwrap()), rows_of(batches.clone()), "{}", format);
            }
        }
    }

    /// Wherever a bit is flipped or the file ends too soon, rows or an error come of it, never a panic; and of a file that is
    /// cut short, an error.
    #[test]
    fn damaged_files_are_errors(at in 0.0..1.0f64, bit in 0..8u32, cut in 0.0..1.0f64, which in 0..6usize) {
        let (format, bytes) = &samples()[which];
        let mut flipped = bytes.clone();
        let at = (at * bytes.len() as f64) as usize;
        flipped[at] ^= 1 << bit;
        let schema = schema();
        let (_file, input) = kept(&flipped);
        let _ = inspect(&input, *format, &options(), &[]);
        let _ = read_all(input, *format, &schema);
        let (_file, input) = kept(&bytes[..(cut * bytes.len() as f64) as usize]);
        prop_assert!(read_all(input, *format, &schema).is_err());
    }
}

/// Columnar files of a few thousand rows in the codecs that are read.
fn samples() -> &'static [(Format, Vec<u8>)] {
    static SAMPLES: std::sync::OnceLock<Vec<(Format, Vec<u8>)>> = std::sync::OnceLock::new();
    SAMPLES.get_or_init(|| {
        let schema = schema();
        let rows: Vec<_> =
            (0..3000i64).map(|i| (i * 7919 % 1000, (i % 11) as u8, format!("text {}", i % 17))).collect();
        let batch = batch(&schema, &rows);
        let parquet = |codec, version| {
            let properties = WriterProperties::builder().set_compression(codec).set_writer_version(version);
            let properties = properties.set_max_row_group_row_count(Some(1000)).build();
            let mut writer = ArrowWriter::try_new(Vec::new(), schema.arrow(), Some(properties)).unwrap();
            writer.write(&batch).unwrap();
            (Format::Parquet, writer.into_inner().unwrap())
        };
        let arrow = |compression| {
            let options = arrow_ipc::writer::IpcWriteOptions::default().try_with_compression(compression).unwrap();
            let mut writer =
                arrow_ipc::writer::FileWriter::try_new_with_options(Vec::new(), &schema.arrow(), options).unwrap();
            writer.write(&batch).unwrap();
            writer.finish().unwrap();
            (Format::Arrow, writer.into_inner().unwrap())
        };
        vec![
            parquet(Compression::SNAPPY, WriterVersion::PARQUET_1_0),
            parquet(Compression::GZIP(GzipLevel::default()), WriterVersion::PARQUET_2_0),
            parquet(Compression::ZSTD(ZstdLevel::default()), WriterVersion::PARQUET_2_0),
            parquet(Compression::LZ4_RAW, WriterVersion::PARQUET_1_0),
            arrow(Some(arrow_ipc::CompressionType::LZ4_FRAME)),
            arrow(Some(arrow_ipc::CompressionType::ZSTD)),
        ]
    })
}

#[test]
fn every_sample_is_whole_before_it_is_damaged() {
    for (format, bytes) in samples() {
        let (_file, input) = kept(bytes);
        let rows: usize = read_all(input, *format, &schema()).unwrap().iter().map(RecordBatch::num_rows).sum();
        assert_eq!(rows, 3000);
    }
}

fn both(fields: Vec<(&str, ArrayRef)>) -> [(Format, Vec<u8>); 2] {
    let columns: Vec<Field> = fields.iter().map(|(n, a)| Field::new(*n, a.data_type().clone(), true)).collect();
    let schema = Arc::new(Schema::new(columns));
    let batch = RecordBatch::try_new(Arc::clone(&schema), fields.into_iter().map(|(_, a)| a).collect()).unwrap();
    let mut parquet = parquet_writer(Vec::new(), Arc::clone(&schema)).unwrap();
    parquet.write(&batch).unwrap();
    let mut arrow = arrow_ipc::writer::StreamWriter::try_new(Vec::new(), &schema).unwrap();
    arrow.write(&batch).unwrap();
    arrow.finish().unwrap();
    [(Format::Parquet, parquet.into_inner().unwrap()), (Format::Arrow, arrow.into_inner().unwrap())]
}

#[test]
fn foreign_types_become_ours() {
    let mut dictionary = StringDictionaryBuilder::<Int32Type>::new();
    dictionary.extend([Some("AA"), None]);
    let day_ms = 15_736i64 * 86_400_000;
    let files = both(vec![
        ("small", Arc::new(Int16Array::from(vec![Some(-7), None]))),
        ("wide", Arc::new(UInt64Array::from(vec![Some(u64::MAX), None]))),
        ("half", Arc::new(Float32Array::from(vec![Some(0.5), None]))),
        ("dec", Arc::new(Decimal128Array::from(vec![Some(12_345), None]).with_precision_and_scale(9, 2).unwrap())),
        ("large", Arc::new(LargeStringArray::from(vec![Some("l"), None]))),
        ("view", Arc::new(StringViewArray::from(vec![Some("a view of more than twelve bytes"), None]))),
        ("dict", Arc::new(dictionary.finish())),
        (
            "fixed",
            Arc::new(
                FixedSizeBinaryArray::try_from_sparse_iter_with_size([Some([1u8, 2]), None].into_iter(), 2).unwrap(),
            ),
        ),
        ("s", Arc::new(TimestampSecondArray::from(vec![Some(1_359_608_400), None]).with_timezone("+02:00"))),
        ("ms", Arc::new(TimestampMillisecondArray::from(vec![Some(1_359_608_400_250), None]))),
        ("ns", Arc::new(TimestampNanosecondArray::from(vec![Some(1_359_608_400_000_001_000), None]))),
        ("d64", Arc::new(Date64Array::from(vec![Some(day_ms), None]))),
    ]);
    for (format, bytes) in files {
        let (_file, input) = kept(&bytes);
        let found = inspect(&input, format, &options(), &[("small".to_owned(), ColumnType::Text)]).unwrap();
        let types: Vec<String> = found.columns.iter().map(|c| c.ty.to_string()).collect();
        let want = ["text", "decimal(20,0)", "float64", "decimal(9,2)", "text", "text", "text", "bytes"];
        assert_eq!(types[..8], want);
        // Parquet has neither seconds nor days in milliseconds: what its writer makes of them are numbers.
        let s = if format == Format::Parquet { "int64" } else { "timestamp" };
        assert_eq!(types[8..11], [s, "timestamp", "timestamp"]);
        let schema = TableSchema::new("t", found.columns, &["view"], vec![]).unwrap();
        let rows = read_all(input, format, &schema).unwrap();
        let at = |name: &str| Value::at(rows[0].column_by_name(name).unwrap(), 0).unwrap().to_string();
        let got = ["small", "wide", "half", "dec", "large", "view", "dict", "fixed"].map(at);
        let want =
            ["-7", "18446744073709551615", "0.5", "123.45", "l", "a view of more than twelve bytes", "AA", "\\x0102"];
        assert_eq!(got, want, "{format}");
        let got = ["s", "ms", "ns", "d64"].map(at);
        let want = ["2013-01-31T05:00:00Z", "2013-01-31T05:00:00.250000Z", "2013-01-31T05:00:00.000001Z", "2013-01-31"];
        assert_eq!(got[1..3], want[1..3], "{format}");
        assert_eq!(got[0], if s == "int64" { "1359608400" } else { want[0] });
        let days = if format == Format::Parquet { day_ms.to_string() } else { want[3].to_owned() };
        assert!(got[3].starts_with(&days), "{format}: {}", got[3]);
        assert!(rows[0].columns().iter().all(|c| c.is_null(1)));
    }
}

#[test]
fn columns_that_cannot_be_kept_are_refused_by_name_and_type() {
    let list = ListArray::from_iter_primitive::<Int32Type, _, _>([Some([Some(1)])]);
    let inner: ArrayRef = Arc::new(Int16Array::from(vec![1]));
    let object = StructArray::from(vec![(Arc::new(Field::new("a", DataType::Int16, true)), inner)]);
    let refused: [(&str, ArrayRef, &str); 5] = [
        ("tags", Arc::new(list), "nested"),
        ("address", Arc::new(object), "nested"),
        ("clock", Arc::new(Time64MicrosecondArray::from(vec![1])), "times of day"),
        (
            "huge",
            Arc::new(Decimal256Array::from_iter_values([1.into()]).with_precision_and_scale(50, 2).unwrap()),
            "1 to 28 digits",
        ),
        ("nothing", Arc::new(NullArray::new(1)), "nothing but NULL"),
    ];
    for (name, array, why) in refused {
        for (format, bytes) in both(vec![("id", Arc::new(Int16Array::from(vec![1]))), (name, Arc::clone(&array))]) {
            // Parquet writes a column of nothing as integers.
            if name == "nothing" && format == Format::Parquet {
                continue;
            }
            let (_file, input) = kept(&bytes);
            let error = inspect(&input, format, &options(), &[]).unwrap_err().to_string();
            assert!(error.contains(name) && error.contains(why), "{format}: {error}");
            if name == "huge" {
                let types = [("huge".to_owned(), ColumnType::Decimal { precision: 10, scale: 2 })];
                let found = inspect(&input, format, &options(), &types).unwrap();
                let schema = TableSchema::new("t", found.columns, &["id"], vec![]).unwrap();
                assert_eq!(
                    Value::at(read_all(input, format, &schema).unwrap()[0].column(1), 0).unwrap().to_string(),
                    "0.01"
                );
            }
        }
    }
    let json = b"{\"id\":1,\"tags\":[1,2]}\n";
    let error =
        inspect(&Input::stream(&json[..]).unwrap(), Format::JsonLines, &options(), &[]).unwrap_err().to_string();
    assert!(error.contains("tags") && error.contains("an array"), "{error}");
}

#[test]
fn a_value_that_does_not_fit_is_named() {
    let ns: ArrayRef = Arc::new(TimestampNanosecondArray::from(vec![1_000, 1_001]));
    for (format, bytes) in both(vec![("at", ns)]) {
        let (_file, input) = kept(&bytes);
        let columns = inspect(&input, format, &options(), &[]).unwrap().columns;
        let schema = TableSchema::new("t", columns, &["at"], vec![]).unwrap();
        let error = read_all(input, format, &schema).unwrap_err().to_string();
        assert!(error.contains("row 2, column \"at\"") && error.contains("no whole microsecond"), "{error}");
    }
    let long: ArrayRef = Arc::new(LargeStringArray::from(vec!["x".repeat(40_000)]));
    for (format, bytes) in both(vec![("t", long)]) {
        let (_file, input) = kept(&bytes);
        let columns = inspect(&input, format, &options(), &[]).unwrap().columns;
        let error = read_all(input, format, &TableSchema::new("t", columns, &["t"], vec![]).unwrap()).unwrap_err();
        assert!(error.to_string().contains("a value of 40000 bytes"), "{error}");
    }
}

#[test]
fn json_lines_are_read_by_their_digits() {
    let text = "\u{feff}{\"n\":9007199254740993,\"price\":1.10,\"day\":\"2013-01-31\",\"name\":\"\\u00e9\"}\n\n{\"name\":null,\"n\":-1,\"price\":2}\r\n{\"n\":3,\"ok\":true}\n";
    let found = inspect(&Input::stream(text.as_bytes()).unwrap(), Format::JsonLines, &options(), &[]).unwrap();
    let got: Vec<_> =
        found.columns.iter().map(|c| format!("{} {}{}", c.name, c.ty, if c.nullable { "?" } else { "" })).collect();
    assert_eq!(got, ["n int64", "price decimal(5,2)?", "day date?", "name text?", "ok bool?"]);
    assert_eq!(found.rows, Some(3));
    let schema = TableSchema::new("t", found.columns, &["n"], vec![]).unwrap();
    let rows = read_all(Input::stream(text.as_bytes()).unwrap(), Format::JsonLines, &schema).unwrap();
    assert_eq!(Value::at(rows[0].column(0), 0), Some(Value::Int64(9_007_199_254_740_993)));
    assert_eq!(Value::at(rows[0].column(1), 0).unwrap().to_string(), "1.10");
    for (line, want) in [
        ("{\"n\":1.5}", "row 1, column \"n\": \"1.5\" is no int64"),
        ("{\"n\":1,\"n\":2}", "twice"),
        ("{\"n\":1,\"more\":2}", "\"more\" is not in the table"),
        ("{\"price\":1}", "column \"n\": NULL"),
        ("{\"n\":1,\"ok\":1}", "column \"ok\": \"1\" is no bool"),
        ("[1]", "line 1"),
        ("{\"n\":1", "line 1"),
        ("{\"n\":1} x", "line 1"),
        ("{\"n\":\"\u{fffd}", "line 1"),
    ] {
        let error =
            read_all(Input::stream(Cursor::new(line.to_owned())).unwrap(), Format::JsonLines, &schema).unwrap_err();
        assert!(error.to_string().contains(want), "{line}: {error}");
    }
    let long = format!("{{\"n\":1,\"name\":\"{}\"}}\n", "x".repeat(LINE_BYTES_MAX));
    let error = read_all(Input::stream(Cursor::new(long)).unwrap(), Format::JsonLines, &schema).unwrap_err();
    assert!(matches!(error, FileError::Limit { .. }), "{error}");
}

#[test]
fn bombs_are_refused_before_they_are_unpacked() {
    // A page of a gigabyte of zeros.
    let column: ArrayRef = Arc::new(arrow_array::Int64Array::from(vec![0i64; 12 << 20]));
    let schema = Arc::new(Schema::new(vec![Field::new("n", DataType::Int64, false)]));
    let batch = RecordBatch::try_new(Arc::clone(&schema), vec![column]).unwrap();
    let properties = WriterProperties::builder()
        .set_compression(Compression::GZIP(GzipLevel::default()))
        .set_dictionary_enabled(false)
        .set_write_batch_size(16 << 20)
        .set_data_page_size_limit(1 << 30)
        .set_data_page_row_count_limit(1 << 30)
        .set_max_row_group_row_count(None)
        .build();
    let mut writer = ArrowWriter::try_new(Vec::new(), schema, Some(properties)).unwrap();
    writer.write(&batch).unwrap();
    let bytes = writer.into_inner().unwrap();
    let (_file, input) = kept(&bytes);
    let table = TableSchema::new("t", vec![Column::new("n", ColumnType::Int64)], &["n"], vec![]).unwrap();
    let error = read_all(input, Format::Parquet, &table).unwrap_err();
    assert!(matches!(&error, FileError::Limit { what, .. } if what.contains("a page")), "{error}");
    // An Arrow batch that claims to be larger than any.
    let (_, arrow) = samples().iter().find(|(f, _)| *f == Format::Arrow).unwrap();
    let mut lie = arrow[..8].to_vec();
    lie.extend([0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f]);
    let error = read_all(Input::stream(Cursor::new(lie)).unwrap(), Format::Arrow, &schema_of("n")).unwrap_err();
    assert!(matches!(error, FileError::Limit { .. }), "{error}");
}

fn schema_of(name: &str) -> TableSchema {
    TableSchema::new("t", vec![Column::new(name, ColumnType::Int64)], &[name], vec![]).unwrap()
}

#[test]
fn csv_says_what_would_be_read_back_as_null() {
    let table = TableSchema::new("t", vec![Column::nullable("name", ColumnType::Text)], &["name"], vec![]).unwrap();
    let mut builder = ColumnBuilder::new(ColumnType::Text, 1);
    builder.push(&Value::Text(String::new()));
    let batch = RecordBatch::try_new(table.arrow(), vec![builder.finish()]).unwrap();
    let mut writer = Writer::new(Vec::new(), Format::Csv, table.arrow(), WriteOptions::default()).unwrap();
    assert!(writer.write(&batch).unwrap_err().to_string().contains("\"name\""));
}

#[test]
fn dates_that_text_does_not_have_are_refused_by_text_formats() {
    let table = TableSchema::new("t", vec![Column::new("day", ColumnType::Date)], &["day"], vec![]).unwrap();
    let mut builder = ColumnBuilder::new(ColumnType::Date, 1);
    builder.push(&Value::Date(-800_000));
    let batch = RecordBatch::try_new(table.arrow(), vec![builder.finish()]).unwrap();
    for format in FORMATS {
        let mut writer = Writer::new(Vec::new(), format, table.arrow(), WriteOptions::default()).unwrap();
        let text = matches!(format, Format::Csv | Format::JsonLines);
        assert_eq!(writer.write(&batch).is_err(), text, "{format}");
    }
}

#[test]
fn formats_are_told_by_the_name() {
    let of = |name: &str| Format::of_path(Path::new(name));
    assert_eq!(of("a.CSV"), Some(Format::Csv));
    assert_eq!(of("a.b.parquet"), Some(Format::Parquet));
    assert_eq!(of("a.feather"), Some(Format::Arrow));
    assert_eq!(of("a.ndjson"), Some(Format::JsonLines));
    assert_eq!(of("a.xlsx"), None);
    assert_eq!(of("parquet"), None);
}
