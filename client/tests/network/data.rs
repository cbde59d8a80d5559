//! A generated table with every type, NULLs and duplicates, and the plain computation that verified answers are compared with.

use fluence_client::csv::{CsvBatches, CsvOptions};
use fluence_client::{Column, ColumnType, SumExpr, TableSchema, Value};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

pub(crate) fn schema() -> TableSchema {
    let columns = vec![
        Column::new("hour", ColumnType::Timestamp),
        Column::new("carrier", ColumnType::Text),
        Column::new("flight", ColumnType::Int64),
        Column::nullable("delay", ColumnType::Int64),
        Column::new("distance", ColumnType::Decimal { precision: 8, scale: 1 }),
        Column::nullable("ratio", ColumnType::Float64),
        Column::new("ontime", ColumnType::Bool),
        Column::nullable("day", ColumnType::Date),
        Column::nullable("tail", ColumnType::Text),
        Column::nullable("raw", ColumnType::Bytes),
    ];
    let mut sums = SumExpr::variance("delay").to_vec();
    sums.extend(SumExpr::variance("distance"));
    sums.push(SumExpr::Product("delay".into(), "distance".into()));
    sums.push(SumExpr::Column("ontime".into()));
    TableSchema::new("flights", columns, &["hour", "carrier", "flight"], sums).unwrap()
}

/// A CSV of `rows` rows in no order; the null token is `NA`.
pub(crate) fn csv(rows: usize, seed: u64) -> Vec<u8> {
    let mut rng = StdRng::seed_from_u64(seed);
    let mut text = "hour,carrier,flight,delay,distance,ratio,ontime,day,tail,raw\n".to_owned();
    let mut last = String::new();
    for i in 0..rows {
        if i % 97 == 5 {
            // A row twice over.
            text.push_str(&last);
            continue;
        }
        let null = |rng: &mut StdRng, text: String| if rng.gen_ratio(1, 9) { "NA".to_owned() } else { text };
        let (day, hour) = (rng.gen_range(1..=28), rng.gen_range(0..24));
        let carrier = ["AA", "B6", "DL", "EV", "UA", "\"W,N\""][rng.gen_range(0..6)];
        let delay = rng.gen_range(-60..900).to_string();
        let (delay, ratio) = (null(&mut rng, delay), rng.gen_range(-1.0..1.0f64).to_string());
        let (ratio, tail) = (null(&mut rng, ratio), format!("N{}", rng.gen_range(100..400)));
        let (tail, date) = (null(&mut rng, tail), null(&mut rng, format!("2013-02-{day:02}")));
        let raw = format!("0x{:06x}", rng.gen_range(0..0x1_000000));
        let raw = null(&mut rng, raw);
        let (flight, miles, tenth) = (rng.gen_range(1..500), rng.gen_range(80..4983), rng.gen_range(0..10));
        let ontime = ratio != "NA";
        last = format!(
            "2013-02-{day:02} {hour:02}:00:00,{carrier},{flight},{delay},{miles}.{tenth},{ratio},{ontime},{date},{tail},{raw}\n"
        );
        text.push_str(&last);
    }
    text.into_bytes()
}

pub(crate) fn batches(csv: &[u8]) -> CsvBatches {
    CsvBatches::from_bytes(csv.to_vec(), &schema(), &CsvOptions::default()).unwrap()
}

/// Rows as plain values.
#[derive(Clone, Debug, Default)]
pub(crate) struct Plain(pub(crate) Vec<Vec<Value>>);

impl Plain {
    pub(crate) fn of(csv: &[u8]) -> Self {
        let mut rows = Vec::new();
        for batch in batches(csv) {
            let batch = batch.unwrap();
            for r in 0..batch.num_rows() {
                rows.push(batch.columns().iter().map(|c| Value::at(c, r).unwrap()).collect());
            }
        }
        Self(rows)
    }

    pub(crate) fn of_batch(batch: &arrow_array::RecordBatch) -> Self {
        Self(
            (0..batch.num_rows()).map(|r| batch.columns().iter().map(|c| Value::at(c, r).unwrap()).collect()).collect(),
        )
    }

    pub(crate) fn filter(&self, keep: impl Fn(&[Value]) -> bool) -> Self {
        Self(self.0.iter().filter(|r| keep(r)).cloned().collect())
    }

    /// The rows sorted by all their bytes, key first, as text: to compare as multisets.
    pub(crate) fn canonical(&self) -> Vec<String> {
        let mut all: Vec<_> = self.0.iter().map(|r| format!("{r:?}")).collect();
        all.sort_unstable();
        all
    }

    /// Not-NULL values of a column as integers of its scale.
    pub(crate) fn integers(&self, column: usize) -> Vec<i128> {
        self.0
            .iter()
            .filter_map(|r| match &r[column] {
                Value::Int64(v) => Some(i128::from(*v)),
                Value::Decimal { unscaled, .. } => Some(*unscaled),
                Value::Bool(b) => Some(i128::from(*b)),
                Value::Null => None,
                other => panic!("{other:?}"),
            })
            .collect()
    }
}

/// The timestamp of an hour of February 2013.
pub(crate) fn hour(day: u32, hour: i64) -> Value {
    let midnight = i64::from(fluence_client::time::days(2013, 2, day).unwrap()) * 86_400_000_000;
    Value::Timestamp(midnight + hour * 3_600_000_000)
}
