//! A proof for strangers: one sum as a Groth16 proof, checked here, on chain, and by `fluence verify`.

use super::{Play, RANGE_SUM, World, name_of};
use crate::commands::query::{key_file_name, write_json};
use crate::demo::ask;
use crate::demo::report::Proof;
use crate::demo::story::{Story, round};
use crate::error::{Context, Failure, Result};
use crate::{output, remote};
use fluence_client::dial::Dialer;
use fluence_client::prove::ProvenSum;
use fluence_client::{SumExpr, Table};
use fluence_verifier::groth16::proof_eip2537;
use std::path::Path;
use std::process::{Command, Stdio};

impl Play {
    pub(super) async fn proof_for_strangers(
        &mut self,
        story: &mut Story,
        world: &World,
        tables: &[Table<Dialer>],
    ) -> Result<()> {
        story.act(
            "A proof for strangers",
            "The same sum as a Groth16 proof of 192 bytes: whoever has no keys can check it, here or on chain.",
        );
        self.check()?;
        story.begin("range_sum proof");
        let (quarter, range) = ask::may(tables)?;
        let sum = ProvenSum::Sum(SumExpr::Column("distance".to_owned()));
        let key = &world.range_sum;
        let proved = tables[quarter].prove_sum(&range, &sum, &key.vk, key.insecure_dev).await;
        let proved = proved.map_err(|e| remote::failure(e, "the node made no proof"))?;
        let file = self.dir.join("range_sum-may-distance.json");
        write_json(&file, &proved.file)?;
        story.fact("masked_sum", proved.masked.to_string());
        story.end(format!(
            "a member proved SUM(distance) of May = {} in {:.1} s: {} constraints, verified in {:.1} ms",
            proved.value,
            proved.prove_ms as f64 / 1e3,
            output::count(proved.constraints),
            proved.verify_ms,
        ));

        story.begin("on chain");
        let bytes = proof_eip2537(&proved.file.proof).doing("the proof is not one")?;
        let inputs = &proved.file.public_inputs;
        let held =
            world.chain.verify_range_sum(&RANGE_SUM, inputs, &bytes).await.doing("the chain cannot check the proof")?;
        let gas = world
            .chain
            .verify_range_sum_gas(&RANGE_SUM, inputs, &bytes)
            .await
            .doing("the chain cannot price the proof")?;
        let mut other = inputs.clone();
        other[2] = fluence_types::FieldBytes::from_u64(1);
        let lie = world
            .chain
            .verify_range_sum(&RANGE_SUM, &other, &bytes)
            .await
            .doing("the chain cannot check a false sum")?;
        if !held || lie {
            return Err(Failure::refused(format!("the contract says {held} to the proof and {lie} to another sum")));
        }
        story.fact("gas", gas);
        story.end(format!(
            "the contract says yes by eth_call ({} gas as a transaction), and no to another sum",
            output::count(gas)
        ));
        story.report.proofs.push(Proof {
            file: name_of(&file),
            statement: "range_sum".to_owned(),
            shape: RANGE_SUM.to_string(),
            constraints: proved.constraints,
            prove_seconds: proved.prove_ms as f64 / 1e3,
            verify_ms: round(proved.verify_ms),
            bytes: proved.file.proof.0.len() as u64,
            gas: Some(gas),
            tx: None,
        });

        story.begin("fluence verify");
        let contract = world.chain.deployment().epoch_proofs.to_string();
        let by_chain = ["--rpc", self.anvil().rpc_url(), "--contract", &contract];
        self.verify(&file, &by_chain, 0)?;
        let vkey = self.dir.join(key_file_name(RANGE_SUM)).display().to_string();
        self.verify(&file, &["--vkey", &vkey], 0)?;
        // The key in the file proves nothing.
        self.verify(&file, &[], 3)?;
        let mut forged = proved.file.clone();
        forged.public_inputs[2] = other[2];
        let forged_path = self.dir.join("forged.json");
        write_json(&forged_path, &forged)?;
        self.verify(&forged_path, &by_chain, 3)?;
        std::fs::remove_file(&forged_path).doing("cannot remove the forged proof")?;
        story.end(
            "accepts it by the contract's key and by a key file; refuses it without a key to trust, and a changed sum",
        );
        Ok(())
    }

    /// Runs `fluence verify` as a stranger would; its exit code must be `want`.
    fn verify(&self, file: &Path, flags: &[&str], want: i32) -> Result<()> {
        let program = crate::demo::place::own_program()?;
        let run = Command::new(program).arg("verify").arg(file).args(flags).arg("--json").stdin(Stdio::null()).output();
        let run = run.doing("cannot run `fluence verify`")?;
        if run.status.code() == Some(want) {
            return Ok(());
        }
        Err(Failure::failed(format!(
            "`fluence verify {} {}` ended with {}, not {want}",
            name_of(file),
            flags.join(" "),
            run.status
        ))
        .because(String::from_utf8_lossy(&run.stderr).trim()))
    }
}
