//! Statements from the command line, a file, standard input, or a person.
//!
//! History  in the home's `sql_history`, readable by its owner only: statements hold data.

use super::print;
use crate::args::{RowFormat, Sql};
use crate::error::{Context, Failure, Result};
use crate::home::{Home, private_file};
use crate::output::Out;
use fluence_gateway::session::Gateway;
use fluence_gateway::{SqlSession, is_whole};
use rustyline::completion::{Completer, Pair};
use rustyline::error::ReadlineError;
use rustyline::highlight::Highlighter;
use rustyline::hint::Hinter;
use rustyline::history::FileHistory;
use rustyline::validate::Validator;
use rustyline::{CompletionType, Config, Editor, Helper};
use std::io::{IsTerminal, Read};
use std::path::Path;
use std::sync::Arc;

/// Longest file of statements.
const FILE_BYTES_MAX: u64 = 16 << 20;

const HELP: &str = "\
statements end with a semicolon and may go over several lines
  \\dt            tables and views       \\d TABLE   a table's columns
  \\proof on|off  the line about the proof under each answer
  \\q             leave (or ctrl-D)      ctrl-C     drop the statement at hand";

pub(crate) async fn run(gateway: Arc<Gateway>, args: &Sql, home: &Home, out: &Out) -> Result<()> {
    let mut session = gateway.session("owner", &args.place.db).await.map_err(|e| print::failure(&e))?;
    let format = if out.is_json() && args.format != RowFormat::Parquet { RowFormat::Json } else { args.format };
    if format == RowFormat::Parquet && std::io::stdout().is_terminal() {
        return Err(
            Failure::usage("a Parquet file is nothing for a terminal").help("send it to a file: > rows.parquet")
        );
    }
    let rows = &print::Rows::new(format);
    for text in &args.command {
        statements(&mut session, text, rows, out).await?;
    }
    if let Some(path) = &args.file {
        statements(&mut session, &read(path)?, rows, out).await?;
    }
    if !args.command.is_empty() || args.file.is_some() {
        return Ok(());
    }
    if !std::io::stdin().is_terminal() {
        return statements(&mut session, &read(Path::new("-"))?, rows, out).await;
    }
    interactive(&mut session, rows, home, out).await
}

fn read(path: &Path) -> Result<String> {
    let mut text = String::new();
    let name = if path == Path::new("-") { "standard input".to_owned() } else { path.display().to_string() };
    let read = if path == Path::new("-") {
        std::io::stdin().lock().take(FILE_BYTES_MAX + 1).read_to_string(&mut text)
    } else {
        std::fs::File::open(path).and_then(|f| f.take(FILE_BYTES_MAX + 1).read_to_string(&mut text))
    };
    read.doing(format!("cannot read {name}"))?;
    if text.len() as u64 > FILE_BYTES_MAX {
        return Err(Failure::usage(format!("{name} is longer than {FILE_BYTES_MAX} bytes")));
    }
    Ok(text)
}

/// Runs the statements of a text in order, up to the first that fails.
async fn statements(session: &mut SqlSession, text: &str, rows: &print::Rows, out: &Out) -> Result<()> {
    for statement in session.parse(text).map_err(|e| print::failure(&e))? {
        let run = async {
            let prepared = session.prepare(statement, Vec::new()).await?;
            session.execute(&prepared, Vec::new()).await
        };
        let outcome = run.await.map_err(|e| print::failure(&e))?;
        print::outcome(outcome, rows, out).await?;
        for notice in session.take_notices() {
            out.note(out.dim(&format!("{}: {}", notice.severity, notice.message)));
        }
    }
    Ok(())
}

/// Completes keywords and the names of tables.
struct Words(Vec<String>);

impl Helper for Words {}
impl Highlighter for Words {}
impl Validator for Words {}
impl Hinter for Words {
    type Hint = String;
}

impl Completer for Words {
    type Candidate = Pair;
    fn complete(&self, line: &str, at: usize, _: &rustyline::Context<'_>) -> rustyline::Result<(usize, Vec<Pair>)> {
        let start = line[..at].rfind(|c: char| !c.is_alphanumeric() && c != '_').map_or(0, |i| i + 1);
        let word = line[start..at].to_lowercase();
        if word.is_empty() {
            return Ok((at, Vec::new()));
        }
        let fits = self.0.iter().filter(|w| w.to_lowercase().starts_with(&word));
        Ok((start, fits.map(|w| Pair { display: w.clone(), replacement: w.clone() }).collect()))
    }
}

const KEYWORDS: &[&str] = &[
    "SELECT",
    "FROM",
    "WHERE",
    "GROUP BY",
    "ORDER BY",
    "LIMIT",
    "INSERT INTO",
    "VALUES",
    "UPDATE",
    "DELETE FROM",
    "CREATE TABLE",
    "CREATE INDEX",
    "CREATE VIEW",
    "DROP TABLE",
    "ALTER TABLE",
    "PRIMARY KEY",
    "RETURNING",
    "BEGIN",
    "COMMIT",
    "ROLLBACK",
    "EXPLAIN",
    "EXPLAIN (PRIVACY)",
    "COUNT",
    "SUM",
    "AVG",
    "MIN",
    "MAX",
    "JOIN",
    "BETWEEN",
];

async fn words(session: &mut SqlSession) -> Words {
    let mut words: Vec<String> = KEYWORDS.iter().map(|k| (*k).to_owned()).collect();
    words.extend(session.relations());
    Words(words)
}

async fn interactive(session: &mut SqlSession, rows: &print::Rows, home: &Home, out: &Out) -> Result<()> {
    let history = home.dir().join("sql_history");
    if !history.exists() {
        private_file(&history, b"")?;
    }
    let config = Config::builder().completion_type(CompletionType::List).auto_add_history(false).build();
    let mut editor: Editor<Words, FileHistory> = Editor::with_config(config).doing("cannot read the terminal")?;
    // A history that cannot be read is begun anew.
    let _ = editor.load_history(&history);
    out.note(
        out.dim(
            "every row is verified before it is shown; statements are kept in the home's sql_history; \\? for help",
        ),
    );
    let on = "SET fluence.notices = on";
    statements(session, on, &print::Rows::new(RowFormat::Csv), &Out::new(false, true)).await?;
    let mut pending = String::new();
    loop {
        editor.set_helper(Some(words(session).await));
        let prompt = if pending.is_empty() { "fluence> " } else { "      -> " };
        match editor.readline(prompt) {
            Ok(line) if pending.is_empty() && line.trim().is_empty() => continue,
            Ok(line) => {
                if !pending.is_empty() {
                    pending.push('\n');
                }
                pending.push_str(&line);
            }
            Err(ReadlineError::Interrupted) => {
                pending.clear();
                continue;
            }
            Err(ReadlineError::Eof) => break,
            Err(error) => return Err(error).doing("cannot read the terminal"),
        }
        let last = pending.lines().last().unwrap_or_default().trim().to_owned();
        if matches!(pending.trim().trim_end_matches(';'), "help" | "exit" | "quit") {
            out.note("\\? for help, \\q to leave");
            pending.clear();
            continue;
        }
        // At any prompt: whoever is lost in a statement gets out.
        if let Some(command) = last.strip_prefix('\\') {
            let text = meta(command);
            pending.clear();
            match text {
                Meta::Quit => break,
                Meta::Help => out.line(HELP),
                Meta::Sql(text) => report(statements(session, &text, rows, out).await),
            }
            continue;
        }
        if !is_whole(&pending) {
            continue;
        }
        let text = std::mem::take(&mut pending);
        let _ = editor.add_history_entry(text.trim());
        let _ = editor.append_history(&history);
        report(statements(session, &text, rows, out).await);
    }
    Ok(())
}

fn report(done: Result<()>) {
    if let Err(failure) = done {
        failure.print(false);
    }
}

enum Meta {
    Quit,
    Help,
    Sql(String),
}

fn meta(command: &str) -> Meta {
    let (word, rest) = command.split_once(' ').unwrap_or((command, ""));
    let rest = rest.trim().trim_end_matches(';');
    let literal = format!("'{}'", rest.replace('\'', "''"));
    match word.trim_end_matches(';') {
        "q" => Meta::Quit,
        "dt" | "d" if rest.is_empty() => Meta::Sql(
            "SELECT table_name AS name, table_type AS type FROM information_schema.tables WHERE table_schema = 'public' ORDER BY 1".to_owned(),
        ),
        "d" => Meta::Sql(format!(
            "SELECT column_name AS column, data_type AS type, is_nullable AS nullable FROM information_schema.columns WHERE table_schema = 'public' AND table_name = {literal} ORDER BY ordinal_position"
        )),
        "proof" => Meta::Sql(format!("SET fluence.notices = {literal}")),
        _ => Meta::Help,
    }
}
