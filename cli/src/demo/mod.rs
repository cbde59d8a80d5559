//! `fluence demo`: the whole system on one machine, told as a story, checked at every step, non-interactive.
//!
//! ```text
//! stage      keys, a local chain with the contracts, four nodes and an arbiter
//! import     a year of flights, a quarter a node
//! questions  rows and aggregates, each compared with a plain computation over the CSV
//! proof      one sum as a Groth16 proof: checked here, on chain, and by `fluence verify`
//! hours      epochs in which every node proves that it still has everything
//! damage     one node's pages are overwritten from outside; it says "lost"; a liar with good checksums is refused
//! judgement  the damaged node cannot prove, is challenged, and is slashed; nobody else is
//! ```
//! Rule    every step either holds or ends the demo with its cause and the logs' ends; no process outlives it.

mod acts;
mod ask;
mod cast;
mod children;
mod damage;
mod data;
pub(crate) mod place;
mod report;
mod story;

use crate::args::{Damage, Demo};
use crate::error::{Failure, Result};
use crate::output::Out;
use acts::Play;
use story::Story;

/// Plays the demo; ends every process it started, however it ends.
pub(crate) async fn run(args: &Demo, out: &Out) -> Result<()> {
    let repo = place::repository()?;
    let dir = args.out.clone().unwrap_or_else(|| repo.join("target/demo"));
    let csv = data::locate(args.csv.as_deref(), &repo)?;
    let anvil = place::anvil(&repo)?;
    place::fresh_dir(&dir)?;
    // Children have other working directories in mind than ours: paths in their configuration are whole.
    let dir = dir.canonicalize().map_err(|e| Failure::failed("the demo's folder is gone").because(e))?;
    let keys_dir = place::keys_dir(&repo)?;

    let stop = fluence_node::shutdown_on_signal();
    let mut story = Story::new(*out);
    out.line(out.bold("Fluence: a database whose nodes cannot read it, prove every answer, and prove every hour that they still have it."));
    let damage = if args.damage == Damage::None { "nothing is damaged" } else { "one node is damaged" };
    out.line(out.dim(&format!("DEMO_SEED={} ({damage}). Logs, proofs and report: {}", args.seed, dir.display())));
    let mut play = Play::new(args, dir.clone(), repo, csv, anvil, keys_dir);
    let outcome = tokio::select! {
        outcome = play.run(&mut story) => outcome,
        () = stop.cancelled() => Err(Failure::failed("interrupted")),
    };
    story.report.peak_memory_mib = play.peak_memory_mib();
    let interrupted = stop.is_cancelled();
    let ended = story.finish(outcome, &dir).map_err(|f| if interrupted { f } else { with_logs(f, &play) });
    if ended.is_ok() && args.keep {
        out.line("");
        for line in play.whereabouts() {
            out.line(line);
        }
        out.line("Everything stays up until ctrl-C.");
        stop.cancelled().await;
    }
    ended
}

/// The ends of all logs, under what failed.
fn with_logs(failure: Failure, play: &Play) -> Failure {
    play.log_tails()
        .into_iter()
        .fold(failure, |f, (name, tail)| f.because(format!("-- end of {name}'s log --\n{tail}")))
}
