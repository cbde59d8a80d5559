//! `fluence proofs`: list, show and export proof files. Showing is not verifying, and says so.

use super::verify::{in_words, read_proof};
use crate::args::{Format, Proofs};
use crate::error::{Context, Failure, Help, Result};
use crate::home::Home;
use crate::output::Out;
use fluence_types::proof::ProofFile;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};

pub(crate) fn run(command: &Proofs, home: &Home, out: &Out) -> Result<()> {
    match command {
        Proofs::Ls { dir } => list(&dir.clone().unwrap_or_else(|| home.proofs()), out),
        Proofs::Show { file } => show(file, out),
        Proofs::Export { file, format: Format::Snarkjs, out: folder } => export(file, folder, out),
    }
}

fn list(dir: &Path, out: &Out) -> Result<()> {
    let mut files: Vec<PathBuf> = match std::fs::read_dir(dir) {
        Ok(entries) => entries
            .filter_map(|e| Some(e.ok()?.path()))
            .filter(|p| p.extension().is_some_and(|e| e == "json"))
            .collect(),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Vec::new(),
        Err(e) => return Err(e).doing(format!("cannot read {}", dir.display())),
    };
    files.sort();
    // Other JSON may lie beside proofs (a demo's report): what is no proof file is passed over.
    let proofs: Vec<(PathBuf, ProofFile)> =
        files.into_iter().filter_map(|p| read_proof(&p).ok().map(|f| (p, f))).collect();
    let value: Vec<Value> = proofs.iter().map(|(path, file)| summary(path, file)).collect();
    out.result(&json!({ "dir": dir, "proofs": value }), |out| {
        if proofs.is_empty() {
            out.line(format!("no proof files in {}", dir.display()));
            return;
        }
        let rows = proofs.iter().map(|(path, file)| {
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            let key = if file.insecure_dev_key { "dev" } else { "" };
            vec![name, file.circuit.to_string(), crate::output::short(file.fingerprint), key.to_owned()]
        });
        out.table(&["file", "circuit", "key", ""], rows);
    });
    Ok(())
}

fn summary(path: &Path, file: &ProofFile) -> Value {
    json!({
        "file": path, "circuit": file.circuit, "fingerprint": file.fingerprint,
        "insecure_dev_key": file.insecure_dev_key, "says": in_words(file),
    })
}

fn show(path: &Path, out: &Out) -> Result<()> {
    let file = read_proof(path)?;
    let mut value = summary(path, &file);
    value["public_inputs"] = json!(file.public_inputs);
    value["context"] = json!(file.context);
    value["verified"] = Value::Null;
    out.result(&value, |out| {
        out.line(format!("circuit        {}", file.circuit));
        out.line(format!("says           {}", in_words(&file)));
        out.line(format!(
            "key            {}{}",
            file.fingerprint,
            if file.insecure_dev_key { " (development key)" } else { "" }
        ));
        for (i, input) in file.public_inputs.iter().enumerate() {
            out.line(format!("public input {i} {input}"));
        }
        out.line(format!(
            "proof          192 bytes, {}",
            crate::output::short(format!("0x{}", hex::encode(file.proof.0)))
        ));
        out.note("not verified; `fluence verify` does that");
    });
    Ok(())
}

fn export(path: &Path, folder: &Path, out: &Out) -> Result<()> {
    let file = read_proof(path)?;
    let files = fluence_verifier::snarkjs::export(&file).refused(format!("{} cannot be exported", path.display()))?;
    std::fs::create_dir_all(folder).doing(format!("cannot make {}", folder.display()))?;
    let mut written = Vec::new();
    for (name, value) in files.named() {
        let target = folder.join(name);
        let text = serde_json::to_vec_pretty(value).expect("numbers as text");
        std::fs::write(&target, text)
            .doing(format!("cannot write {}", target.display()))
            .or_help("name a folder you can write to with --out DIR")?;
        written.push(target);
    }
    if written.len() != 3 {
        return Err(Failure::failed("the export is not three files"));
    }
    out.result(&json!({ "files": written }), |out| {
        for path in &written {
            out.line(path.display());
        }
        let path = |i: usize| written[i].display();
        out.note(format!("check with: snarkjs groth16 verify {} {} {}", path(2), path(1), path(0)));
    });
    Ok(())
}
