//! How commands talk: results on stdout, progress and notes on stderr; JSON for programs; colours only where they are welcome.
//!
//! Rule    with `--json` stdout holds exactly one JSON value and nothing else; one a line where a command goes on until it is stopped.
//! Rule    colours are off under `NO_COLOR` (any value but the empty one), with `--json`, and where stdout is not a terminal.
//! Source  <https://no-color.org>

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::fmt::Display;
use std::io::{IsTerminal, Write};
use std::sync::Mutex;
use std::time::{Duration, Instant};

/// How often a plain progress line is printed where there is no terminal.
const PLAIN_PROGRESS_EVERY: Duration = Duration::from_secs(3);

/// Where and how to print.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Out {
    json: bool,
    quiet: bool,
    color: bool,
    live: bool,
    bars: bool,
}

impl Out {
    /// Decides once, from the flags and the environment.
    pub(crate) fn new(json: bool, quiet: bool) -> Self {
        let no_color = std::env::var_os("NO_COLOR").is_some_and(|v| !v.is_empty());
        let out = Self {
            json,
            quiet,
            color: !json && !no_color && std::io::stdout().is_terminal(),
            live: !json && std::io::stdout().is_terminal(),
            bars: !json && !quiet && std::io::stderr().is_terminal(),
        };
        let color = !no_color && std::io::stderr().is_terminal();
        // A second hook would only be refused; nothing depends on which one stands.
        let _ = miette::set_hook(Box::new(move |_| {
            Box::new(miette::MietteHandlerOpts::new().color(color).unicode(color).width(110).build())
        }));
        out
    }

    /// Results go out as JSON.
    pub(crate) const fn is_json(&self) -> bool {
        self.json
    }

    /// A line of the result, for people.
    pub(crate) fn line(&self, text: impl Display) {
        if !self.json {
            print(&format!("{text}\n"));
        }
    }

    /// A line beside the result, on stderr.
    pub(crate) fn note(&self, text: impl Display) {
        if !self.json && !self.quiet {
            eprintln!("{text}");
        }
    }

    /// A warning: on stderr even when quiet.
    pub(crate) fn warn(&self, text: impl Display) {
        if !self.json {
            eprintln!("{} {text}", self.yellow("warning:"));
        }
    }

    /// The whole result, for programs.
    pub(crate) fn json(&self, value: &impl serde::Serialize) {
        if self.json {
            let text = serde_json::to_string_pretty(value).expect("results hold only text keys and finite numbers");
            print(&format!("{text}\n"));
        }
    }

    /// One of many results, for programs: a line each.
    pub(crate) fn json_line(&self, value: &impl serde::Serialize) {
        if self.json {
            let text = serde_json::to_string(value).expect("results hold only text keys and finite numbers");
            print(&format!("{text}\n"));
        }
    }

    /// Whether what was printed can be drawn anew. A terminal without colours is one too.
    pub(crate) const fn is_live(&self) -> bool {
        self.live
    }

    /// Clears the screen, where stdout is a terminal.
    pub(crate) fn clear(&self) {
        if self.live {
            print("\u{1b}[H\u{1b}[2J");
        }
    }

    /// The whole result: JSON for programs, or what `human` prints.
    pub(crate) fn result(&self, value: &impl serde::Serialize, human: impl FnOnce(&Self)) {
        if self.json { self.json(value) } else { human(self) }
    }

    /// A table for people.
    pub(crate) fn table(&self, header: &[&str], rows: impl IntoIterator<Item = Vec<String>>) {
        for line in laid_out(header.iter().map(|h| self.bold(h)), rows) {
            self.line(line);
        }
    }

    /// A table beside the result, on stderr.
    pub(crate) fn note_table(&self, header: &[&str], rows: impl IntoIterator<Item = Vec<String>>) {
        for line in laid_out(header.iter().map(|h| (*h).to_owned()), rows) {
            self.note(line);
        }
    }

    /// Bold, where colours are on.
    pub(crate) fn bold(&self, text: &str) -> String {
        self.paint("1", text)
    }
    /// Green, where colours are on.
    pub(crate) fn green(&self, text: &str) -> String {
        self.paint("32", text)
    }
    /// Red, where colours are on.
    pub(crate) fn red(&self, text: &str) -> String {
        self.paint("31", text)
    }
    /// Yellow, where colours are on.
    pub(crate) fn yellow(&self, text: &str) -> String {
        self.paint("33", text)
    }
    /// Dim, where colours are on.
    pub(crate) fn dim(&self, text: &str) -> String {
        self.paint("2", text)
    }

    fn paint(&self, code: &str, text: &str) -> String {
        if self.color { format!("\u{1b}[{code}m{text}\u{1b}[0m") } else { text.to_owned() }
    }

    /// A progress bar over `total` units; with 0, a spinner.
    pub(crate) fn progress(&self, what: &str, unit: &'static str, total: u64) -> Progress {
        let bar = if self.bars { ProgressBar::new(total) } else { ProgressBar::hidden() };
        if self.bars {
            bar.set_draw_target(ProgressDrawTarget::stderr_with_hz(10));
            let style = if total == 0 {
                "  {spinner} {msg} {elapsed}".to_owned()
            } else if unit == "bytes" {
                "  {msg} [{bar:32}] {binary_bytes}/{binary_total_bytes} {binary_bytes_per_sec} {eta}".to_owned()
            } else {
                format!("  {{msg}} [{{bar:24}}] {{human_pos}}/{{human_len}} {unit} {{eta}}")
            };
            bar.set_style(
                ProgressStyle::with_template(&style).expect("the templates above parse").progress_chars("=> "),
            );
            bar.enable_steady_tick(Duration::from_millis(120));
        }
        bar.set_message(what.to_owned());
        let plain = !self.bars && !self.json && !self.quiet;
        let what = Mutex::new(what.to_owned());
        Progress { bar, plain, unit, what, last: Mutex::new(Instant::now()), begun: Instant::now() }
    }
}

fn laid_out(header: impl Iterator<Item = String>, rows: impl IntoIterator<Item = Vec<String>>) -> Vec<String> {
    let mut table = comfy_table::Table::new();
    table.load_style(comfy_table::presets::NOTHING);
    table.set_header(header);
    for row in rows {
        table.add_row(row);
    }
    table.lines().map(|line| line.trim_end().to_owned()).collect()
}

/// Prints to stdout; a reader that went away (`| head`) ends the program quietly rather than with a panic.
fn print(text: &str) {
    let mut stdout = std::io::stdout().lock();
    if stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()).is_err() {
        std::process::exit(0);
    }
}

/// A running piece of work.
pub(crate) struct Progress {
    bar: ProgressBar,
    plain: bool,
    unit: &'static str,
    what: Mutex<String>,
    last: Mutex<Instant>,
    begun: Instant,
}

impl Progress {
    /// Units done so far; a larger `total` than announced extends the bar.
    pub(crate) fn set(&self, done: u64, total: u64) {
        if self.bar.length() != Some(total) {
            self.bar.set_length(total);
        }
        self.bar.set_position(done);
        if self.plain {
            let mut last = self.last.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            if last.elapsed() >= PLAIN_PROGRESS_EVERY {
                *last = Instant::now();
                let what = self.what.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
                if total == 0 {
                    eprintln!("  {what}: {} s", self.begun.elapsed().as_secs());
                } else {
                    let percent = done.saturating_mul(100) / total.max(1);
                    eprintln!("  {what}: {done}/{total} {} ({percent} %)", self.unit);
                }
            }
        }
    }

    /// Replaces the text beside the bar.
    pub(crate) fn message(&self, text: &str) {
        self.bar.set_message(text.to_owned());
        text.clone_into(&mut self.what.lock().unwrap_or_else(std::sync::PoisonError::into_inner));
    }

    /// Ends it; returns how long it took.
    pub(crate) fn done(self) -> Duration {
        self.bar.finish_and_clear();
        self.begun.elapsed()
    }
}

/// Bytes for people.
pub(crate) fn bytes(n: u64) -> String {
    indicatif::BinaryBytes(n).to_string()
}

/// A count with thousands separators.
pub(crate) fn count(n: u64) -> String {
    indicatif::HumanCount(n).to_string()
}

/// The first characters of an id.
pub(crate) fn short(id: impl Display) -> String {
    let text = id.to_string();
    if text.len() > 14 { format!("{}..", &text[..12]) } else { text }
}
