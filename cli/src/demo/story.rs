//! Telling the story: acts, steps with their times, facts worth showing. What is told is also what the report records.

use super::report::{Report, Step};
use crate::error::{Failure, Result};
use crate::output::{Out, Progress};
use serde_json::{Map, Value};
use std::path::Path;
use std::time::Instant;

/// The narrator, and the report it writes.
pub(crate) struct Story {
    out: Out,
    /// The report so far.
    pub(crate) report: Report,
    running: Option<Running>,
    acts: u32,
    begun: Instant,
}

struct Running {
    name: String,
    begun: Instant,
    more: Map<String, Value>,
}

impl Story {
    pub(crate) fn new(out: Out) -> Self {
        let report = Report { machine: super::report::machine(), ..Report::default() };
        Self { out, report, running: None, acts: 0, begun: Instant::now() }
    }

    /// A new act, and what it is about.
    pub(crate) fn act(&mut self, title: &str, about: &str) {
        self.acts += 1;
        self.out.line("");
        self.out.line(self.out.bold(&format!("{}. {title}", self.acts)));
        for line in about.lines() {
            self.out.line(self.out.dim(&format!("   {line}")));
        }
    }

    /// A step begins; the one before must have ended.
    pub(crate) fn begin(&mut self, name: &str) {
        debug_assert!(self.running.is_none(), "a step is running");
        self.running = Some(Running { name: name.to_owned(), begun: Instant::now(), more: Map::new() });
    }

    /// A fact of the running step, for the report.
    pub(crate) fn fact(&mut self, key: &str, value: impl Into<Value>) {
        if let Some(running) = &mut self.running {
            running.more.insert(key.to_owned(), value.into());
        }
    }

    /// Ends the running step with one line about it.
    pub(crate) fn end(&mut self, line: impl std::fmt::Display) {
        let step = self.close(true);
        if let Some(step) = step {
            let seconds = format!("{:>6.1} s", step.seconds);
            self.out.line(format!("   {} {}  {line}", self.out.green("ok"), self.out.dim(&seconds)));
            self.report.steps.push(step);
        }
    }

    /// A line inside a step.
    pub(crate) fn tell(&self, line: impl std::fmt::Display) {
        self.out.line(format!("      {line}"));
    }

    /// A progress bar.
    pub(crate) fn progress(&self, what: &str, unit: &'static str, total: u64) -> Progress {
        self.out.progress(what, unit, total)
    }

    /// The printer.
    pub(crate) const fn out(&self) -> &Out {
        &self.out
    }

    fn close(&mut self, ok: bool) -> Option<Step> {
        let r = self.running.take()?;
        Some(Step { name: r.name, ok, seconds: round(r.begun.elapsed().as_secs_f64()), more: r.more })
    }

    /// Ends the story: writes the report, ok only if nothing failed.
    pub(crate) fn finish(mut self, outcome: Result<()>, out_dir: &Path) -> Result<()> {
        if let Err(failure) = &outcome {
            let mut step = self.close(false).unwrap_or(Step {
                name: "demo".to_owned(),
                ok: false,
                seconds: round(self.begun.elapsed().as_secs_f64()),
                more: Map::new(),
            });
            step.more.insert("error".to_owned(), failure.one_line().into());
            self.out.line(format!("   {}  {}", self.out.red("failed"), step.name));
            self.report.steps.push(step);
        }
        self.report.ok = outcome.is_ok() && self.report.steps.iter().all(|s| s.ok);
        let path = out_dir.join("report.json");
        let text = serde_json::to_vec_pretty(&self.report).expect("a report is plain data");
        let written = crate::home::replace_file(&path, &text);
        self.out.json(&self.report);
        outcome.and(written)?;
        if !self.report.ok {
            return Err(Failure::failed("a step did not hold").help(format!("see {}", path.display())));
        }
        self.out.line("");
        let total = self.begun.elapsed().as_secs_f64();
        let text = format!("Every step held, in {total:.0} s. Report and proofs: {}", out_dir.display());
        self.out.line(self.out.green(&text));
        Ok(())
    }
}

/// Thousandths are enough for a report.
pub(crate) fn round(x: f64) -> f64 {
    (x * 1000.0).round() / 1000.0
}
