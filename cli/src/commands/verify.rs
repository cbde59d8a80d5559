//! `fluence verify`: is this proof file true, under a key that did not come with it?
//!
//! Rule    exit code 0 only for a proof that holds under a key the caller has a reason to trust: one compiled into this binary, one in
//!         `--vkey FILE`, or the one whose hash the contract at `--contract` pins. Everything else is refused with exit code 3.

use crate::args::Verify;
use crate::error::{Context, Failure, Help, Result};
use crate::output::Out;
use fluence_bindings::Connection;
use fluence_bindings::abi::EpochProofs;
use fluence_types::Address;
use fluence_types::limits::PROOF_FILE_BYTES_MAX;
use fluence_types::proof::{ProofContext, ProofFile};
use fluence_verifier::proof_file::{self, KEY_FILE_BYTES_MAX, KeyFile, KeySource, ProofFileError, Verdict};
use serde_json::json;
use std::io::Read;
use std::path::Path;
use std::time::{Duration, Instant};

/// How long the chain may take to say which key it pins.
const CHAIN_LIMIT: Duration = Duration::from_secs(20);

pub(crate) async fn run(args: &Verify, out: &Out) -> Result<()> {
    let file = read_proof(&args.file)?;
    let key_file = args.vkey.as_deref().map(read_key).transpose()?;
    let source = match (&key_file, &args.rpc, &args.contract) {
        (Some(key), _, _) => KeySource::File(key),
        (None, Some(rpc), Some(contract)) => KeySource::Chain { pinned_hash: pinned(rpc, contract, &file).await? },
        _ => KeySource::Binary,
    };
    let begun = Instant::now();
    let verdict = proof_file::check(&file, &source).map_err(|e| refusal(&args.file, &e, &source))?;
    let ms = begun.elapsed().as_secs_f64() * 1000.0;
    let value = json!({
        "verified": true,
        "circuit": verdict.circuit,
        "fingerprint": verdict.fingerprint,
        "insecure_dev_key": verdict.insecure_dev_key,
        "key_source": verdict.key_source,
        "public_inputs": file.public_inputs,
        "context": file.context,
        "ms": (ms * 1000.0).round() / 1000.0,
    });
    out.result(&value, |out| show(out, &file, &verdict, ms));
    Ok(())
}

fn show(out: &Out, file: &ProofFile, verdict: &Verdict, ms: f64) {
    out.line(format!("{}  {} in {ms:.1} ms", out.green("verified"), verdict.circuit));
    out.line(format!("  says   {}", in_words(file)));
    out.line(format!("  key    {} {}", verdict.fingerprint, verdict.key_source));
    if verdict.insecure_dev_key {
        out.warn(
            "this is a development key: whoever made it could forge proofs. Good for local chains, and nothing else.",
        );
    }
}

/// What the statement says, in one sentence.
pub(crate) fn in_words(file: &ProofFile) -> String {
    let input = |i: usize| file.public_inputs.get(i).map_or_else(|| "?".to_owned(), ToString::to_string);
    match &file.context {
        ProofContext::Storage { seed } => format!(
            "in epoch {}, node {} had the {} sampled cells of all {} under root {}",
            seed.epoch,
            seed.node,
            seed.shape >> 48,
            file.public_inputs.get(1).and_then(|f| f.to_u64()).unwrap_or_default(),
            input(0)
        ),
        ProofContext::RangeSum { height, db, query } => format!(
            "under root {} of database {db} at height {height}, the masked sum of lane {} over {} is {}",
            input(0),
            query.lane,
            query.ranges.iter().map(|r| format!("rows {}..{}", r.lo, r.hi)).collect::<Vec<_>>().join(" and "),
            input(2)
        ),
        _ => "a statement this version does not know".to_owned(),
    }
}

/// Reads a proof file under its limit; garbage is a refusal, a missing file a failure.
pub(crate) fn read_proof(path: &Path) -> Result<ProofFile> {
    let bytes = read_limited(path, PROOF_FILE_BYTES_MAX)?;
    proof_file::read(&bytes)
        .refused(format!("{} is not a proof file", path.display()))
        .or_help("docs/protocol/proof-file.md describes the format")
}

fn read_key(path: &Path) -> Result<KeyFile> {
    let bytes = read_limited(path, KEY_FILE_BYTES_MAX)?;
    KeyFile::read(&bytes)
        .usage(format!("{} is not a verification key file", path.display()))
        .or_help("`fluence demo` writes one beside each proof, and `fluence proofs show` names the key a proof needs")
}

fn read_limited(path: &Path, limit: usize) -> Result<Vec<u8>> {
    let read = || -> std::io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        std::fs::File::open(path)?.take(limit as u64 + 1).read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    read().doing(format!("cannot read {}", path.display())).or_help("check the path")
}

/// The hash of the key that a contract pins for the file's circuit.
async fn pinned(rpc: &str, contract: &str, file: &ProofFile) -> Result<[u8; 32]> {
    let address: Address =
        contract.parse().usage("--contract is not an address").or_help("an address is 0x and 40 hex digits")?;
    let connection = Connection::new(rpc, None).usage("--rpc is not a URL").or_help("as http://127.0.0.1:8545")?;
    let epoch_proofs = EpochProofs::new(address.to_bytes().into(), connection.provider());
    let circuit = alloy::primitives::keccak256(file.circuit.to_string());
    let call = epoch_proofs.vkHash(circuit);
    let answer = tokio::time::timeout(CHAIN_LIMIT, call.call().into_future()).await;
    let help = "check --rpc and --contract: the address is that of EpochProofs";
    match answer {
        Err(_) => Err(Failure::failed(format!("{rpc} did not answer within {} s", CHAIN_LIMIT.as_secs())).help(help)),
        Ok(Ok(hash)) => Ok(hash.0),
        Ok(Err(e)) if e.as_revert_data().is_some() => {
            Err(Failure::refused(format!("contract {contract} pins no key for {}", file.circuit)).because(e).help(help))
        }
        Ok(Err(e)) => Err(Failure::failed(format!("cannot ask contract {contract} for its key")).because(e).help(help)),
    }
}

fn refusal(path: &Path, error: &ProofFileError, source: &KeySource<'_>) -> Failure {
    let failure = Failure::refused(format!("{} is refused", path.display())).because(error);
    match (error, source) {
        (ProofFileError::UnknownKey { .. }, KeySource::Binary) => failure.help(
            "the key inside the file proves nothing. Name one you trust: --vkey FILE, or --rpc URL --contract ADDR",
        ),
        (ProofFileError::UnknownKey { .. }, _) => {
            failure.help("the proof was made under another key than the one you trust")
        }
        (ProofFileError::Proof(_), _) => failure.help("the statement is not shown; do not rely on it"),
        _ => failure.help("the file was changed or is of another version; ask its maker again"),
    }
}
