//! `fluence query`: rows or aggregates over a key range, verified; on demand with a Groth16 proof that others can check.

use crate::args::Query;
use crate::error::{Context, Failure, Help, Result};
use crate::home::{Home, replace_file};
use crate::output::Out;
use crate::remote::{self, Remote};
use crate::values;
use fluence_client::prove::ProvenSum;
use fluence_client::{Aggregate, KeyRange, Select, Table, Transport};
use fluence_prover::{Keys, export_key};
use fluence_types::shape::CircuitId;
use fluence_verifier::proof_file::KeyFile;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};

pub(crate) async fn run(args: &Query, home: &Home, out: &Out) -> Result<()> {
    let aggregates = args.agg.iter().map(|a| values::aggregate(a)).collect::<Result<Vec<_>>>()?;
    if args.proof_out.is_some() && aggregates.len() != 1 {
        return Err(Failure::usage("--proof-out names one file, and there is more than one aggregate")
            .help("ask for one aggregate, or leave --proof-out away"));
    }
    if args.prove && !aggregates.iter().all(provable) {
        return Err(Failure::usage("--prove needs aggregates that are one sum").help("count or sum:EXPR"));
    }
    let remote = Remote::open(home, &args.place, &args.unlock, true).await?;
    let database = remote.database(home, &args.place).await?;
    crate::chain::floor(&args.chain, home, remote.session(), database.id(), out).await?;
    let table = remote::table_named(&database, &args.table).await?;
    let range =
        values::key_range(table.schema(), args.from.as_deref(), args.to.as_deref(), args.where_prefix.as_deref())?;
    if aggregates.is_empty() {
        return rows(&table, args, range, out).await;
    }
    let answered =
        table.aggregates(&range, &aggregates).await.map_err(|e| remote::failure(e, "the query was not answered"))?;
    let mut proofs = Vec::new();
    if args.prove {
        for aggregate in &aggregates {
            proofs.push(prove(&table, &range, aggregate, args, home, out).await?);
        }
    }
    let list: Vec<Value> = args
        .agg
        .iter()
        .zip(&answered.value)
        .enumerate()
        .map(|(i, (name, value))| json!({ "aggregate": name, "value": values::aggregate_json(value), "proof": proofs.get(i) }))
        .collect();
    let value = json!({ "table": args.table, "answers": list, "evidence": values::evidence_json(&answered.evidence) });
    out.result(&value, |out| {
        let width = args.agg.iter().map(String::len).max().unwrap_or(0);
        for (name, value) in args.agg.iter().zip(&answered.value) {
            let text = match value {
                // Fractions are exact; people read doubles.
                fluence_client::AggregateValue::Fraction(f) => f.to_f64().to_string(),
                other => other.to_string(),
            };
            out.line(format!("{name:<width$}  {}", out.bold(&text)));
        }
        out.note(out.dim(&values::evidence_line(&answered.evidence)));
        for proof in &proofs {
            out.note(format!(
                "proof: fluence verify {} --vkey {}",
                proof["file"].as_str().unwrap_or_default(),
                proof["key_file"].as_str().unwrap_or_default()
            ));
        }
    });
    Ok(())
}

fn provable(aggregate: &Aggregate) -> bool {
    matches!(aggregate, Aggregate::Count | Aggregate::Sum(_))
}

async fn rows<T: Transport>(table: &Table<T>, args: &Query, range: KeyRange, out: &Out) -> Result<()> {
    let select = Select { columns: args.select.clone(), limit: args.limit, ..Select::range(range) };
    let answered = table.select(&select).await.map_err(|e| remote::failure(e, "the query was not answered"))?;
    let batch = &answered.value;
    let names: Vec<String> = batch.schema().fields().iter().map(|f| f.name().clone()).collect();
    let rows = values::rows(batch);
    let value = json!({
        "table": args.table,
        "columns": names,
        "rows": rows.iter().map(|r| r.iter().map(values::to_json).collect::<Vec<_>>()).collect::<Vec<_>>(),
        "evidence": values::evidence_json(&answered.evidence),
    });
    out.result(&value, |out| {
        let header: Vec<&str> = names.iter().map(String::as_str).collect();
        out.table(&header, rows.iter().map(|r| r.iter().map(ToString::to_string).collect()));
        out.note(out.dim(&values::evidence_line(&answered.evidence)));
    });
    Ok(())
}

/// Has one sum proven, checks it, and keeps proof and key in files.
async fn prove<T: Transport>(
    table: &Table<T>,
    range: &KeyRange,
    aggregate: &Aggregate,
    args: &Query,
    home: &Home,
    out: &Out,
) -> Result<Value> {
    let sum = match aggregate {
        Aggregate::Sum(expr) => ProvenSum::Sum(expr.clone()),
        _ => ProvenSum::Count,
    };
    let circuit =
        table.proof_circuit().await.map_err(|e| remote::failure(e, "cannot read the table's catalogue entry"))?;
    let circuit = circuit.ok_or_else(|| {
        Failure::failed("the table has more live segments than a proof has room for").help("compact it first")
    })?;
    let (key_path, key_file) = match args.vkey.is_none().then(|| dev_keys(table, home)).flatten() {
        Some(dir) => dev_key(&dir, circuit, out).await?,
        None => trusted_key(args, home, circuit)?,
    };
    let key = key_file.decode().usage(format!("{} cannot be used", key_path.display()))?;
    let bar = out.progress("the node proves", "", 0);
    let proved = table.prove_sum(range, &sum, &key, key_file.insecure_dev_key).await;
    bar.done();
    let proved = proved.map_err(|e| remote::failure(e, "there is no proof"))?;
    let path = match &args.proof_out {
        Some(path) => path.clone(),
        None => {
            home.create()?;
            let text = serde_json::to_vec(&proved.file).expect("a proof file is plain data");
            home.proofs().join(format!("range_sum-{}.json", &blake3::hash(&text).to_hex()[..16]))
        }
    };
    write_json(&path, &proved.file)?;
    Ok(json!({
        "file": path, "key_file": key_path, "circuit": circuit, "masked_sum": proved.masked, "constraints": proved.constraints,
        "prove_ms": proved.prove_ms, "verify_ms": proved.verify_ms, "insecure_dev_key": key_file.insecure_dev_key,
    }))
}

/// The key that the proof must be under: given, or put into the home.
fn trusted_key(args: &Query, home: &Home, circuit: CircuitId) -> Result<(PathBuf, KeyFile)> {
    let path = args.vkey.clone().unwrap_or_else(|| home.dir().join("vkeys").join(key_file_name(circuit)));
    if !path.is_file() {
        return Err(Failure::usage(format!("no key to check the proof with: {} is not there", path.display())).help(
            "name the verification key you trust with --vkey FILE: a ceremony's, or of nodes of your own their development key, which `fluence demo` writes beside its proofs. For nodes of `fluence up` set FLUENCE_KEYS to its DIR/keys, and it is found",
        ));
    }
    let key = key_at(&path, circuit)?;
    Ok((path, key))
}

/// The key of a circuit in a file.
pub(crate) fn key_at(path: &Path, circuit: CircuitId) -> Result<KeyFile> {
    let bytes = std::fs::read(path).doing(format!("cannot read {}", path.display()))?;
    let key = KeyFile::read(&bytes)
        .usage(format!("{} is not a verification key file", path.display()))
        .or_help("`fluence demo` writes such files beside its proofs")?;
    if key.circuit != circuit {
        return Err(Failure::usage(format!("{} is a key for {}", path.display(), key.circuit))
            .help(format!("the table needs one for {circuit}")));
    }
    Ok(key)
}

/// The folder of development keys of the nodes that `fluence up` runs here: where all nodes are on this machine, and the home or the
/// environment is that of `fluence up`. Whoever runs those nodes is the one who asks them.
fn dev_keys<T: Transport>(table: &Table<T>, home: &Home) -> Option<PathBuf> {
    let known = table.session().known().remove(&table.db())?;
    let local = |address: &String| {
        let host = address.strip_prefix("/ip4/").or_else(|| address.strip_prefix("/ip6/"))?.split('/').next()?;
        Some(host.parse::<std::net::IpAddr>().ok()?.is_loopback())
    };
    if known.addresses.is_empty() || !known.addresses.iter().all(|(_, address)| local(address) == Some(true)) {
        return None;
    }
    let up = home.dir().parent().filter(|dir| dir.join(super::up::MARK).is_file());
    let named = std::env::var_os("FLUENCE_KEYS").filter(|v| !v.is_empty()).map(PathBuf::from);
    let dir = named.or_else(|| Some(up?.join("keys")))?;
    // A key that was put into the home counts more.
    let in_home = home.dir().join("vkeys").is_dir();
    (!in_home).then_some(dir)
}

/// The development key of a circuit, made where no node has made it yet.
async fn dev_key(dir: &Path, circuit: CircuitId, out: &Out) -> Result<(PathBuf, KeyFile)> {
    let bar = out.progress("the development key", "", 0);
    let folder = dir.to_owned();
    let keys = tokio::task::spawn_blocking(move || Keys::load_or_setup(&folder, circuit, |_| {})).await;
    bar.done();
    let keys = keys.expect("making a key does not panic").doing(format!("cannot make a key for {circuit}"))?;
    let file = export_key(&keys);
    let path = dir.join(key_file_name(circuit));
    write_json(&path, &file)?;
    if file.insecure_dev_key {
        out.warn("the nodes on this machine prove under a development key made here: whoever made it can forge. Good for local trials, and nothing else.");
    }
    Ok((path, file))
}

/// Name of a circuit's key file.
pub(crate) fn key_file_name(circuit: CircuitId) -> String {
    format!("{}.vkey.json", circuit.to_string().replace('/', "_"))
}

/// Writes a JSON file.
pub(crate) fn write_json(path: &Path, value: &impl serde::Serialize) -> Result<()> {
    let mut text = serde_json::to_vec_pretty(value).expect("plain data");
    text.push(b'\n');
    replace_file(path, &text)
}
