// Checks exported proofs with tools that we did not write: npm's snarkjs, and @noble/curves alone.
//
// Usage   node verify.mjs DIR          DIR, or each folder in it, holds proof.json, public.json, vkey.json, and maybe pinned.json
//                                      {"vk_hash": "0x.."}: keccak256 of the key's EIP-2537 points, as a contract pins it
// Checks  snarkjs accepts; @noble/curves accepts, with subgroup checks; both refuse the same proof for another public input;
//         the key hashes to the pinned value (@noble/hashes).
// Exit    0 if all of that holds for every folder, and there is at least one; 1 otherwise.

import { existsSync, readFileSync, readdirSync, statSync } from "node:fs";
import { join } from "node:path";
import { bls12_381 } from "@noble/curves/bls12-381.js";
import { keccak_256 } from "@noble/hashes/sha3.js";
import { bytesToHex } from "@noble/hashes/utils.js";
import * as snarkjs from "snarkjs";

const { G1, G2, fields } = bls12_381;
const R = fields.Fr.ORDER;
const Q = fields.Fp.ORDER;

const number = (text, below, what) => {
  if (!/^(0|[1-9][0-9]*)$/.test(text)) throw new Error(`${what} is not a decimal number: ${text}`);
  const n = BigInt(text);
  if (n >= below) throw new Error(`${what} is not canonical`);
  return n;
};

// Points are projective with third coordinate 1; fromAffine and assertValidity check the curve and the subgroup.
const g1 = ([x, y, z], what) => {
  if (z !== "1") throw new Error(`${what} is not finite and normalised`);
  const p = G1.Point.fromAffine({ x: number(x, Q, what), y: number(y, Q, what) });
  p.assertValidity();
  return p;
};
const g2 = ([x, y, z], what) => {
  if (z[0] !== "1" || z[1] !== "0") throw new Error(`${what} is not finite and normalised`);
  const fp2 = ([c0, c1]) => ({ c0: number(c0, Q, what), c1: number(c1, Q, what) });
  const p = G2.Point.fromAffine({ x: fp2(x), y: fp2(y) });
  p.assertValidity();
  return p;
};

// e(-A, B) e(alpha, beta) e(IC_0 + sum x_i IC_i, gamma) e(C, delta) = 1
function nobleVerify(vkey, publicInputs, proof) {
  const ic = vkey.IC.map((p, i) => g1(p, `IC[${i}]`));
  if (publicInputs.length !== vkey.nPublic || ic.length !== vkey.nPublic + 1) throw new Error("wrong number of inputs");
  let x = ic[0];
  publicInputs.forEach((text, i) => {
    const scalar = number(text, R, `input ${i}`);
    if (scalar !== 0n) x = x.add(ic[i + 1].multiply(scalar));
  });
  const product = bls12_381.pairingBatch([
    { g1: g1(proof.pi_a, "A").negate(), g2: g2(proof.pi_b, "B") },
    { g1: g1(vkey.vk_alpha_1, "alpha"), g2: g2(vkey.vk_beta_2, "beta") },
    { g1: x, g2: g2(vkey.vk_gamma_2, "gamma") },
    { g1: g1(proof.pi_c, "C"), g2: g2(vkey.vk_delta_2, "delta") },
  ]);
  return fields.Fp12.eql(product, fields.Fp12.ONE);
}

// EIP-2537: 64 bytes a coordinate, c0 before c1.
function pinnedHash(vkey) {
  const word = (text) => BigInt(text).toString(16).padStart(128, "0");
  const one = ([x, y]) => word(x) + word(y);
  const two = ([x, y]) => [...x, ...y].map(word).join("");
  const points = one(vkey.vk_alpha_1) + two(vkey.vk_beta_2) + two(vkey.vk_gamma_2) + two(vkey.vk_delta_2) + vkey.IC.map(one).join("");
  return "0x" + bytesToHex(keccak_256(Uint8Array.from(Buffer.from(points, "hex"))));
}

async function check(dir) {
  const read = (name) => JSON.parse(readFileSync(join(dir, name), "utf8"));
  const [vkey, publicInputs, proof] = ["vkey.json", "public.json", "proof.json"].map(read);
  const changed = [...publicInputs];
  changed[0] = ((BigInt(changed[0]) + 1n) % R).toString();
  const failures = [];
  const expect = (what, holds) => holds || failures.push(what);
  expect("snarkjs accepts", await snarkjs.groth16.verify(vkey, publicInputs, proof));
  expect("@noble/curves accepts", nobleVerify(vkey, publicInputs, proof));
  expect("snarkjs refuses another input", !(await snarkjs.groth16.verify(vkey, changed, proof)));
  expect("@noble/curves refuses another input", !nobleVerify(vkey, changed, proof));
  let pinned = "";
  if (existsSync(join(dir, "pinned.json"))) {
    pinned = ", key hash as pinned";
    expect("the key hashes to the pinned value", pinnedHash(vkey) === read("pinned.json").vk_hash);
  }
  if (failures.length > 0) throw new Error(`does not hold: ${failures.join("; ")}`);
  console.log(`ok ${dir}: snarkjs and @noble/curves accept, and refuse another input${pinned}`);
}

const root = process.argv[2];
if (root === undefined) {
  console.error("usage: node verify.mjs DIR");
  process.exit(1);
}
const here = existsSync(join(root, "proof.json"));
const dirs = here ? [root] : readdirSync(root).map((n) => join(root, n)).filter((d) => statSync(d).isDirectory() && existsSync(join(d, "proof.json")));
if (dirs.length === 0) {
  console.error(`${root}: no proof.json`);
  process.exit(1);
}
let failed = 0;
for (const dir of dirs) {
  try {
    await check(dir);
  } catch (e) {
    failed += 1;
    console.error(`FAILED ${dir}: ${e.message}`);
  }
}
// snarkjs leaves its workers running.
process.exit(failed === 0 ? 0 : 1);
