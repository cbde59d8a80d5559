#!/usr/bin/env node
// Writes artifacts/*.json: ABI and creation bytecode of each contract, so that `cargo build` needs no solc.
//
// Usage   node scripts/artifacts.mjs           compiles and writes
//         node scripts/artifacts.mjs --check   compiles and exits 1 where a committed file differs
// Rule    the compiler, its settings and every source are pinned, and no metadata hash is appended: the same bytes on every machine.
import {execFileSync} from "node:child_process";
import {mkdirSync, mkdtempSync, readFileSync, readdirSync, rmSync, writeFileSync} from "node:fs";
import {tmpdir} from "node:os";
import {dirname, join} from "node:path";
import {fileURLToPath} from "node:url";

const CONTRACTS = ["Checkpoints", "Collateral", "EpochProofs", "Equivocation", "FluToken", "Groth16Verifier", "Holdings", "NodeRegistry", "Placement"];
const here = dirname(dirname(fileURLToPath(import.meta.url)));
const folder = join(here, "artifacts");
const check = process.argv.includes("--check");

if (check) execFileSync(process.execPath, [join(here, "scripts", "poseidon2.mjs"), "--check"], {stdio: "inherit"});
const out = mkdtempSync(join(tmpdir(), "fluence-artifacts-"));
const fresh = {};
try {
  execFileSync(join(here, "bin", "forge"), ["build", "--skip", "test", "--force", "--out", join(out, "out"), "--cache-path", join(out, "cache")], {
    stdio: ["ignore", "ignore", "inherit"],
  });
  for (const name of CONTRACTS) {
    const {abi, bytecode} = JSON.parse(readFileSync(join(out, "out", `${name}.sol`, `${name}.json`), "utf8"));
    if (Object.keys(bytecode.linkReferences ?? {}).length) throw new Error(`${name} needs linking`);
    // One ABI entry a line: a change shows as the lines it touches.
    const lines = abi.map((entry) => `    ${JSON.stringify(entry)}`).join(",\n");
    fresh[`${name}.json`] = `{\n  "contractName": ${JSON.stringify(name)},\n  "abi": [\n${lines}\n  ],\n  "bytecode": ${JSON.stringify(bytecode.object)}\n}\n`;
  }
} finally {
  rmSync(out, {recursive: true, force: true});
}

if (check) {
  const stale = Object.keys(fresh).filter((file) => {
    try { return readFileSync(join(folder, file), "utf8") !== fresh[file]; } catch { return true; }
  });
  const extra = readdirSync(folder).filter((file) => !(file in fresh));
  for (const file of stale) console.error(`artifacts/${file} is stale: run node scripts/artifacts.mjs`);
  for (const file of extra) console.error(`artifacts/${file} is of no contract: remove it`);
  if (stale.length || extra.length) process.exit(1);
  console.log(`${CONTRACTS.length} artifacts are those of the sources`);
} else {
  mkdirSync(folder, {recursive: true});
  for (const [file, text] of Object.entries(fresh)) writeFileSync(join(folder, file), text);
  console.log(`wrote ${CONTRACTS.length} artifacts`);
}
