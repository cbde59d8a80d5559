//! Questions: rows and aggregates, each equal to the plain computation.

use super::Play;
use crate::demo::ask;
use crate::demo::data::Expected;
use crate::demo::story::Story;
use crate::error::{Failure, Result};
use crate::{output, remote};
use fluence_client::dial::Dialer;
use fluence_client::{KeyRange, Table};
use serde_json::Value;

impl Play {
    pub(super) async fn questions(
        &mut self,
        story: &mut Story,
        tables: &[Table<Dialer>],
        expected: &Expected,
    ) -> Result<()> {
        story.act(
            "Questions",
            "Every answer is cells opened to a certified root, verified here before anything is decrypted, and compared with a
plain computation over the CSV by a Python script that knows nothing of us.",
        );
        self.check()?;
        story.begin("fences");
        let mut bytes = 0;
        for table in tables {
            let answered = table.aggregate(&KeyRange::ALL, &fluence_client::Aggregate::Count).await;
            bytes += answered.map_err(|e| remote::failure(e, "a header cannot be fetched"))?.evidence.plan_bytes;
        }
        story.fact("bytes", bytes);
        story.end(format!(
            "segment headers fetched once, {}: their fences find any key range without asking",
            output::bytes(bytes)
        ));

        story.begin("queries");
        if expected.rows != tables_rows(expected) {
            return Err(Failure::failed("the plain computation lost rows between its quarters"));
        }
        let queries = ask::all(tables, expected).await?;
        for q in &queries {
            let answer = match &q.answer {
                Value::Array(rows) => format!("{} rows", rows.len()),
                other => other.to_string(),
            };
            let cost = format!(
                "{} rows verified, {}, {:.1} ms",
                output::count(q.rows),
                output::bytes(q.native_bytes),
                q.native_ms
            );
            story.tell(&q.sql_like);
            story.tell(format!("   = {}   {}", story.out().bold(&format!("{answer:<20}")), story.out().dim(&cost)));
        }
        story.fact("queries", queries.len());
        story.end(format!("{} answers, each equal to the plain computation", queries.len()));
        story.report.queries = queries;
        Ok(())
    }
}

fn tables_rows(expected: &Expected) -> u64 {
    expected.quarters.iter().sum()
}
