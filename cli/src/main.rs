//! `fluence`: the one binary. Parses, runs one command, and turns its failure into a message and an exit code.
//!
//! Exit codes  0 done, 1 something failed, 2 wrong usage, 3 a proof or an answer was refused

mod args;
mod chain;
mod commands;
mod demo;
mod error;
mod home;
mod output;
mod passphrase;
mod processes;
mod remote;
mod values;

use args::{Cli, Command};
use clap::Parser;
use error::{Context, Failure, Result};
use home::Home;
use output::Out;
use std::process::ExitCode;

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(e) if e.use_stderr() && std::env::args_os().any(|a| a == "--json") => {
            let failure = Failure::usage(e.to_string().trim_end().to_owned()).help("see `fluence --help`");
            failure.print(true);
            return failure.exit_code();
        }
        Err(e) => e.exit(),
    };
    let out = Out::new(cli.global.json, cli.global.quiet);
    match run(cli, &out) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            failure.print(out.is_json());
            failure.exit_code()
        }
    }
}

/// Commands log only what `RUST_LOG` asks for; node and arbiter have their own configuration.
fn logs() {
    let filter = tracing_subscriber::EnvFilter::try_from_default_env().unwrap_or_else(|_| "off".into());
    let ansi = std::io::IsTerminal::is_terminal(&std::io::stderr()) && std::env::var_os("NO_COLOR").is_none();
    // A second subscriber would only be refused.
    let _ = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(ansi).try_init();
}

fn run(cli: Cli, out: &Out) -> Result<()> {
    if matches!(cli.command, Command::MarkdownHelp) {
        print!("{}", commands::markdown::page());
        return Ok(());
    }
    let home = Home::locate(cli.global.home.as_deref())?;
    if !matches!(cli.command, Command::Node(_) | Command::Arbiter(_) | Command::DemoLiar(_)) {
        logs();
    }
    // The SQL planner recurses as deep as a statement is nested. A query that computes for long keeps a thread a partition; others answer
    // meanwhile.
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads((threads * 2).max(4))
        .enable_all()
        .thread_stack_size(16 << 20)
        .build();
    let runtime = runtime.doing("cannot start the runtime")?;
    let done = runtime.block_on(async {
        match cli.command {
            Command::Demo(args) => demo::run(&args, out).await,
            Command::Init(args) => commands::init::run(&args, &home, out),
            Command::Keys(keys) => commands::keys::run(&keys, &home, out),
            Command::Import(args) => commands::import::run(&args, &home, out).await,
            Command::Query(args) => commands::query::run(&args, &home, out).await,
            Command::Export(args) => commands::export::run(&args, &home, out).await,
            Command::VerifyExport(args) => commands::verify_export::run(&args, &home, out).await,
            Command::Table(command) => commands::table::run(&command, &home, out).await,
            Command::Sql(args) => commands::sql::run(&args, &home, out).await,
            Command::Cluster(command) => commands::cluster::run(&command, &home, out).await,
            Command::Up(args) => commands::up::run(&args, cli.global.home.is_some(), &home, out).await,
            Command::Node(args) => commands::service::node(&args, out).await,
            Command::Operator(operator) => commands::operator::run(&operator, out).await,
            Command::Arbiter(args) => commands::service::arbiter(&args, out).await,
            Command::DemoLiar(args) => commands::service::liar(&args, out).await,
            Command::Verify(args) => commands::verify::run(&args, out).await,
            Command::Proofs(proofs) => commands::proofs::run(&proofs, &home, out),
            Command::Ceremony(command) => commands::ceremony::run(&command, out),
            Command::Doctor(args) => commands::doctor::run(&args, &home, out).await,
            Command::MarkdownHelp => unreachable!("printed above"),
        }
    });
    // Work that nobody waits for any more must not hold up the exit.
    runtime.shutdown_background();
    done
}
