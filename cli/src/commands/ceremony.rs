//! `fluence ceremony`: thin over `fluence_prover::ceremony`, which does and checks everything.
//!
//! Rule    a contributor's text comes from a file or standard input, never from an argument; the secret is the library's and is wiped there.
//! Rule    a file that is refused ends in exit code 3 with the reason, one that cannot be read or written in 1.

use crate::args::{
    Ceremony, CeremonyBeacon, CeremonyContribute, CeremonyFinalize, CeremonyImport, CeremonyNew, CeremonyVerify,
    Phase1, Text,
};
use crate::error::{Context, Failure, Help, Result};
use crate::output::{Out, Progress};
use fluence_prover::ceremony::{self, CeremonyError, Contributed, Origin, Refusal, Status};
use rand::SeedableRng;
use rand::rngs::OsRng;
use rand_chacha::ChaCha20Rng;
use serde_json::{Value, json};
use std::io::Read;
use std::path::Path;
use zeroize::Zeroizing;

/// Longest text that is read; the library has the same limit.
const TEXT_BYTES_MAX: u64 = 1 << 16;

pub(crate) fn run(command: &Ceremony, out: &Out) -> Result<()> {
    match command {
        Ceremony::Phase1(command) => phase1(command, out),
        Ceremony::Import(args) => import(args, out),
        Ceremony::New(args) => new(args, out),
        Ceremony::Contribute(args) => contribute(args, out),
        Ceremony::Beacon(args) => beacon(args, out),
        Ceremony::Verify(args) => verify(args, out),
        Ceremony::Finalize(args) => finalize(args, out),
        Ceremony::Status { file } => {
            let status = ceremony::status(file).map_err(|e| failure("the ceremony's file does not hold", &e))?;
            show(&status, out);
            Ok(())
        }
        Ceremony::Matrices { circuit, out: file } => {
            let hash =
                ceremony::export_matrices(*circuit, file).map_err(|e| failure("cannot write the matrices", &e))?;
            out.result(&json!({ "circuit": circuit, "matrix_hash": hex::encode(hash), "file": file }), |out| {
                out.line(format!("{circuit}  matrix hash {}", hex::encode(hash)));
            });
            Ok(())
        }
    }
}

/// Coefficients of checks: fast, seeded by the operating system.
fn checks() -> ChaCha20Rng {
    ChaCha20Rng::from_rng(OsRng).expect("the operating system's generator works, or nothing does")
}

/// Runs a long call with a bar that shows its steps.
fn with_progress<T>(
    out: &Out,
    what: &'static str,
    call: impl FnOnce(ceremony::Progress<'_>) -> Result<T, CeremonyError>,
) -> Result<T> {
    let bar: Progress = out.progress(what, "", 1);
    let mut last = "";
    let outcome = call(&mut |step, done, total| {
        if step != last {
            last = step;
            bar.message(&format!("{what}: {step}"));
        }
        bar.set(done, total);
    });
    bar.done();
    outcome.map_err(|e| failure(&format!("{what} failed"), &e))
}

fn phase1(command: &Phase1, out: &Out) -> Result<()> {
    match command {
        Phase1::New { power, out: file } => {
            let hash = with_progress(out, "phase 1", |p| ceremony::phase1_create(file, *power, p))?;
            out.result(&json!({ "file": file, "power": power, "blake2b": hex::encode(hash) }), |out| {
                out.line(format!("{}  2^{power} powers, BLAKE2b-512 {}", file.display(), hex::encode(hash)));
            });
        }
        Phase1::Contribute { file, out: response, text } => {
            let text = read_text(text)?;
            let made = with_progress(out, "contributing", |p| {
                ceremony::phase1_contribute(file, response, &text, &mut OsRng, p)
            })?;
            out.result(&phase1_value(&made, response), |out| {
                out.line(format!("{}  publish this hash:", response.display()));
                out.line(hex::encode(made.response));
            });
        }
        Phase1::Verify { challenge, response, out: next } => {
            let seen = with_progress(out, "verifying", |p| {
                ceremony::phase1_verify(challenge, response, next.as_deref(), &mut checks(), p)
            })?;
            out.result(&phase1_value(&seen, response), |out| {
                out.line(format!("{}  {}", out.green("verified"), response.display()));
                out.line(format!("  BLAKE2b-512 {}", hex::encode(seen.response)));
            });
        }
    }
    Ok(())
}

fn phase1_value(made: &ceremony::Contributed1, response: &Path) -> Value {
    json!({
        "response": response, "power": made.power,
        "challenge_blake2b": hex::encode(made.challenge), "response_blake2b": hex::encode(made.response),
    })
}

fn import(args: &CeremonyImport, out: &Out) -> Result<()> {
    let expect = args.expect.as_deref().map(hash64).transpose()?;
    let log2 = ceremony::log2_rows(args.circuit).map_err(|e| failure("cannot import for that circuit", &e))?;
    let done = with_progress(out, "importing", |p| {
        ceremony::import(&args.file, &args.out, log2, expect.as_ref(), &mut checks(), p)
    })?;
    let origin = match done.origin {
        Origin::Radix => "phase1radix2m",
        Origin::Challenge => "challenge",
        _ => "response",
    };
    let value = json!({
        "source": args.file, "origin": origin, "power": done.power, "source_blake2b": hex::encode(done.source_hash),
        "file": args.out, "log2": done.log2, "blake2b": hex::encode(done.hash), "expected": expect.is_some(),
    });
    out.result(&value, |out| {
        out.line(format!("{}  2^{} powers for 2^{} rows", args.out.display(), done.power, done.log2));
        out.line(format!("  source BLAKE2b-512 {}", hex::encode(done.source_hash)));
        out.line(format!("  file   BLAKE2b-512 {}", hex::encode(done.hash)));
    });
    if expect.is_none() {
        out.warn("whoever made these powers may know tau: compare the source's hash with the one its ceremony published (--expect)");
    }
    Ok(())
}

fn new(args: &CeremonyNew, out: &Out) -> Result<()> {
    let status = with_progress(out, "initial key", |p| {
        ceremony::create(&args.phase1, args.circuit, &args.out, &mut checks(), p)
    })?;
    show(&status, out);
    Ok(())
}

fn contribute(args: &CeremonyContribute, out: &Out) -> Result<()> {
    let text = read_text(&args.text)?;
    let made = with_progress(out, "contributing", |p| {
        ceremony::contribute(&args.file, &args.out, &args.name, &text, &mut OsRng, p)
    })?;
    tell(&made, &args.out, out);
    Ok(())
}

fn beacon(args: &CeremonyBeacon, out: &Out) -> Result<()> {
    let mut value = [0; 32];
    hex::decode_to_slice(args.value.strip_prefix("0x").unwrap_or(&args.value), &mut value)
        .usage("--value is not 32 bytes of hex")
        .or_help("64 digits of hex, as a block hash or a drand round gives them")?;
    let made =
        with_progress(out, "beacon", |p| ceremony::beacon(&args.file, &args.out, value, args.iterations_log2, p))?;
    tell(&made, &args.out, out);
    Ok(())
}

fn tell(made: &Contributed, file: &Path, out: &Out) {
    out.result(&contribution(made), |out| {
        out.line(format!("{}  contribution {}; publish this hash:", file.display(), made.number));
        out.line(hex::encode(made.hash));
    });
}

fn verify(args: &CeremonyVerify, out: &Out) -> Result<()> {
    let (status, key) = with_progress(out, "verifying", |p| match &args.keys_dir {
        None => ceremony::verify(&args.file, &args.phase1, &mut checks(), p).map(|v| (v.status, None)),
        Some(dir) => ceremony::check_key(dir, &args.file, &args.phase1, &mut checks(), p)
            .map(|f| (f.status.clone(), Some((f.fingerprint, f.pinned_hash)))),
    })?;
    let mut value = status_value(&status);
    value["verified"] = json!(true);
    if let Some((fingerprint, pinned)) = &key {
        value["fingerprint"] = json!(fingerprint);
        value["pinned_hash"] = json!(format!("0x{}", hex::encode(pinned)));
    }
    out.result(&value, |out| {
        out.line(format!("{}  the ceremony holds from its beginning", out.green("verified")));
        lines(&status, out);
        if let Some((fingerprint, pinned)) = key {
            out.line(format!("  key    {fingerprint}"));
            out.line(format!("  pinned 0x{}", hex::encode(pinned)));
        }
    });
    Ok(())
}

fn finalize(args: &CeremonyFinalize, out: &Out) -> Result<()> {
    let done = with_progress(out, "finalizing", |p| {
        ceremony::finalize(&args.file, &args.phase1, &args.out, &mut checks(), p)
    })?;
    let mut value = status_value(&done.status);
    value["key"] = json!(done.key);
    value["verification_key"] = json!(done.verification_key);
    value["transcript"] = json!(done.transcript);
    value["fingerprint"] = json!(done.fingerprint);
    value["pinned_hash"] = json!(format!("0x{}", hex::encode(done.pinned_hash)));
    out.result(&value, |out| {
        for path in [&done.key, &done.verification_key, &done.transcript] {
            out.line(path.display());
        }
        out.line(format!("  key    {}", done.fingerprint));
        out.line(format!("  pinned 0x{}", hex::encode(done.pinned_hash)));
        out.note("binaries and contracts accept it when its hash is in their tables: docs/protocol/ceremony.md");
    });
    Ok(())
}

fn show(status: &Status, out: &Out) {
    out.result(&status_value(status), |out| lines(status, out));
}

fn lines(status: &Status, out: &Out) {
    let state = if status.ended { "ended" } else { "open" };
    out.line(format!("{}  {state}, {} contributions", status.circuit, status.contributions.len()));
    for c in &status.contributions {
        let name = if c.name.is_empty() { "(no name)" } else { &c.name };
        let beacon = c.beacon.map(|(v, n)| format!("  beacon {} x 2^{n}", hex::encode(v))).unwrap_or_default();
        out.line(format!("  {:>4}  {}  {name}{beacon}", c.number, hex::encode(c.hash)));
    }
    out.line(format!("  hash   {}", hex::encode(status.hash)));
}

fn contribution(c: &Contributed) -> Value {
    json!({
        "number": c.number, "name": c.name, "hash": hex::encode(c.hash),
        "beacon": c.beacon.map(|(v, n)| json!({ "value": hex::encode(v), "iterations_log2": n })),
    })
}

fn status_value(s: &Status) -> Value {
    json!({
        "circuit": s.circuit, "matrix_hash": hex::encode(s.matrix_hash), "phase1_blake2b": hex::encode(s.phase1_hash),
        "log2": s.log2, "ended": s.ended, "hash": hex::encode(s.hash),
        "contributions": s.contributions.iter().map(contribution).collect::<Vec<_>>(),
    })
}

fn read_text(text: &Text) -> Result<Zeroizing<Vec<u8>>> {
    let Some(path) = &text.text_file else { return Ok(Zeroizing::default()) };
    // One allocation, so that no shorter copy is left behind by growing.
    let mut bytes = Zeroizing::new(Vec::with_capacity(TEXT_BYTES_MAX as usize + 1));
    let mut read = |source: &mut dyn Read| source.take(TEXT_BYTES_MAX + 1).read_to_end(&mut bytes);
    let done = if path == Path::new("-") {
        read(&mut std::io::stdin().lock())
    } else {
        std::fs::File::open(path).and_then(|mut f| read(&mut f))
    };
    done.doing(format!("cannot read the text from {}", path.display())).or_help("check the path")?;
    if bytes.len() as u64 > TEXT_BYTES_MAX {
        return Err(Failure::usage(format!("the text is longer than {TEXT_BYTES_MAX} bytes")));
    }
    Ok(bytes)
}

fn hash64(text: &str) -> Result<[u8; 64]> {
    let mut hash = [0; 64];
    hex::decode_to_slice(text.strip_prefix("0x").unwrap_or(text), &mut hash)
        .usage("--expect is no BLAKE2b-512")
        .or_help("128 digits of hex, as the ceremony's transcript publishes them")?;
    Ok(hash)
}

fn failure(what: &str, error: &CeremonyError) -> Failure {
    let failure = match error {
        CeremonyError::Io { .. } => Failure::failed(what),
        CeremonyError::Refused { .. } => Failure::refused(what),
        _ => Failure::usage(what),
    };
    let help = match error {
        CeremonyError::Io { .. } => {
            "files are never replaced: name a new one; and check that the folder can be written to"
        }
        CeremonyError::Refused { why: Refusal::OtherPhase1 { .. }, .. } => {
            "name the phase 1 that the ceremony was started from"
        }
        CeremonyError::Refused { why: Refusal::TooSmall { .. }, .. } => {
            "a circuit takes the phase1radix2m<k> of its own size, or a larger challenge or response"
        }
        CeremonyError::Refused { .. } => "do not build on this file; tell its maker, and ask for it again",
        CeremonyError::NotEnded { .. } => "end it with `fluence ceremony beacon`",
        CeremonyError::NoContribution => "somebody must contribute first: `fluence ceremony contribute`",
        CeremonyError::Ended => "start another ceremony",
        _ => "docs/protocol/ceremony.md names the limits",
    };
    failure.because(error).help(help)
}
