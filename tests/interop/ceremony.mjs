// The key ceremony, read and verified a second time with @noble/curves and @noble/hashes: docs/protocol/ceremony.md, not our Rust.
//
// Usage   node ceremony.mjs --vectors                writes tests/vectors/phase1.json to stdout: phase-1 files made from known secrets
//         node ceremony.mjs --check                  exit 1 if that file differs
//         node ceremony.mjs DIR                      verifies DIR/{phase1, matrices, state, vkey.json}, and refuses copies that were tampered with
// Checks  matrices and phase 1 hash to what the transcript names; phase 1 is of one tau, alpha, beta; each contribution's proof of knowledge
//         and step of delta; the beacon's contribution made again; H and L divided by delta, and IC, against the matrices.
// Source  ePrint 2017/1050; the formats of github.com/ebfull/powersoftau and github.com/filecoin-project/filecoin-phase2

import { randomBytes } from "node:crypto";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { pippenger } from "@noble/curves/abstract/curve.js";
import { bls12_381 } from "@noble/curves/bls12-381.js";
import { blake2b } from "@noble/hashes/blake2.js";
import { blake3 } from "@noble/hashes/blake3.js";
import { sha256 } from "@noble/hashes/sha2.js";
import { bytesToHex, concatBytes } from "@noble/hashes/utils.js";

const { G1, G2, fields } = bls12_381;
const { Fr, Fp12 } = fields;
const G = G1.Point.BASE;
const H = G2.Point.BASE;
const text = (s) => new TextEncoder().encode(s);
const DST = "FLU-CEREMONY-V1-BLS12381G2_XMD:SHA-256_SSWU_RO_";
const hashToG2 = (message) => G2.hashToCurve(message, { DST });
const blake512 = (bytes) => blake2b(bytes, { dkLen: 64 });
const fail = (why) => {
  throw new Error(why);
};

// ---- points and pairings ----

const sizeOf = (group, compressed) => (group === G1 ? 48 : 96) * (compressed ? 1 : 2);
function point(group, bytes, what) {
  let p;
  try {
    p = group.Point.fromBytes(bytes);
    p.assertValidity();
  } catch (e) {
    fail(`${what}: ${e.message}`);
  }
  if (p.is0()) fail(`${what} is the point at infinity`);
  return p;
}
const times = (p, x) => (x === 0n ? p.constructor.ZERO : p.multiplyUnsafe(x));
const sum = (group, points) => points.reduce((a, b) => a.add(b), group.Point.ZERO);
function combine(group, points, scalars) {
  const used = points.map((p, i) => [p, Fr.create(scalars[i])]).filter(([, s]) => s !== 0n);
  return used.length === 0 ? group.Point.ZERO : pippenger(group.Point, used.map(([p]) => p), used.map(([, s]) => s));
}
// a[1] / a[0] = b[1] / b[0]
function same(a, b) {
  const product = bls12_381.pairingBatch([
    { g1: a[0], g2: b[1] },
    { g1: a[1].negate(), g2: b[0] },
  ]);
  return Fp12.eql(product, Fp12.ONE);
}
const coefficients = (count) =>
  Array.from({ length: count }, () => BigInt(`0x${bytesToHex(randomBytes(16))}`) + 1n);

// ---- scalars ----

const root = (log2) => Fr.pow(7n, (Fr.ORDER - 1n) >> BigInt(log2));
const powers = (x, count) => {
  const out = [1n];
  while (out.length < count) out.push(Fr.mul(out[out.length - 1], x));
  return out;
};
// sum_k v_k w^(ik), w of order v.length
function transform(v, w) {
  if (v.length === 1) return v;
  const [even, odd] = [0, 1].map((r) => transform(v.filter((_, i) => i % 2 === r), Fr.sqr(w)));
  const out = new Array(v.length);
  let t = 1n;
  for (let i = 0; i < even.length; i++) {
    const o = Fr.mul(t, odd[i]);
    out[i] = Fr.add(even[i], o);
    out[i + even.length] = Fr.sub(even[i], o);
    t = Fr.mul(t, w);
  }
  return out;
}
const little = (bytes) => BigInt(`0x${bytesToHex(Uint8Array.from(bytes).reverse())}`);

// ---- files ----

class Reader {
  constructor(bytes) {
    this.bytes = bytes;
    this.at = 0;
  }
  take(n, what) {
    if (this.at + n > this.bytes.length) fail(`${what} is cut short`);
    this.at += n;
    return this.bytes.subarray(this.at - n, this.at);
  }
  number(n, what) {
    return Number(little(this.take(n, what)));
  }
  text(what) {
    const n = this.number(1, what);
    if (n > 64) fail(`${what} is too long`);
    return new TextDecoder("utf-8", { fatal: true }).decode(this.take(n, what));
  }
  points(group, count, compressed, what) {
    return Array.from({ length: count }, (_, i) => point(group, this.take(sizeOf(group, compressed), what), `${what} [${i}]`));
  }
  end(what) {
    if (this.at !== this.bytes.length) fail(`${what} goes on behind its end`);
  }
}

// phase1radix2m<k>
function readRadix(bytes) {
  const m = (bytes.length - 288) / 576;
  const log2 = Math.log2(m);
  if (!Number.isInteger(log2) || log2 < 1) fail("phase 1 has a length that none has");
  const r = new Reader(bytes);
  const [alpha, beta] = r.points(G1, 2, false, "alpha and beta");
  const [beta2] = r.points(G2, 1, false, "beta in G2");
  const l1 = r.points(G1, m, false, "Lagrange in G1");
  const l2 = r.points(G2, m, false, "Lagrange in G2");
  const alphaL = r.points(G1, m, false, "Lagrange with alpha");
  const betaL = r.points(G1, m, false, "Lagrange with beta");
  const h = r.points(G1, m - 1, false, "H");
  r.end("phase 1");
  return { m, log2, alpha, beta, beta2, l1, l2, alphaL, betaL, h };
}

function checkRadix(r) {
  const w = root(r.log2);
  const roots = powers(w, r.m);
  const tau1 = combine(G1, r.l1, roots);
  const tau2 = combine(G2, r.l2, roots);
  const expect = (holds, what) => holds || fail(`phase 1: ${what}`);
  expect(sum(G1, r.l1).equals(G) && sum(G2, r.l2).equals(H), "Lagrange points do not add up to the generator");
  expect(sum(G1, r.alphaL).equals(r.alpha) && sum(G1, r.betaL).equals(r.beta), "alpha or beta");
  expect(same([G, tau1], [H, tau2]) && same([G, r.beta], [H, r.beta2]), "the two groups differ");
  const low = transform([...coefficients(r.m - 1), 0n], w);
  const high = low.map((x, i) => Fr.mul(x, roots[i]));
  for (const v of [r.l1, r.alphaL, r.betaL]) expect(same([combine(G1, v, low), combine(G1, v, high)], [H, tau2]), "not powers");
  expect(same([G, tau1], [combine(G2, r.l2, low), combine(G2, r.l2, high)]), "not powers in G2");
  // h_0 + G = tau^m, from tau^(m-1); and every next one is tau times as much.
  const last = combine(G1, r.l1, roots.map((_, i) => roots[(r.m - i) % r.m]));
  expect(same([last, r.h[0].add(G)], [H, tau2]), "H does not begin with tau^m - 1");
  const rho = coefficients(r.m - 2);
  expect(same([combine(G1, r.h.slice(0, -1), rho), combine(G1, r.h.slice(1), rho)], [H, tau2]), "H is not of powers");
}

// The bytes that a circuit's pinned hash is of.
function readMatrices(bytes) {
  const r = new Reader(bytes);
  const tag = "FLU/circuits/matrices/v1";
  if (new TextDecoder().decode(r.take(tag.length, "matrices")) !== tag) fail("these are no matrices");
  const [inputs, witnesses, rows] = [8, 8, 8].map((n) => r.number(n, "matrices"));
  const matrix = () =>
    Array.from({ length: rows }, () =>
      Array.from({ length: r.number(8, "a row") }, () => {
        const column = r.number(8, "a column");
        return [column, BigInt(`0x${bytesToHex(r.take(32, "a coefficient"))}`)];
      }),
    );
  const abc = [matrix(), matrix(), matrix()];
  r.end("the matrices");
  return { inputs, witnesses, rows, abc };
}

// sum rho_j (beta A_j + alpha B_j + C_j), by the rows.
function combineColumns(matrices, radix, rho) {
  const rows = matrices.abc.map((rows) =>
    Array.from({ length: radix.m }, (_, i) => (rows[i] ?? []).reduce((s, [j, c]) => Fr.add(s, Fr.mul(c, rho[j])), 0n)),
  );
  for (let j = 0; j < matrices.inputs; j++) rows[0][matrices.rows + j] = Fr.add(rows[0][matrices.rows + j], rho[j]);
  const [a, b, c] = rows;
  return combine(G1, radix.betaL, a).add(combine(G1, radix.alphaL, b)).add(combine(G1, radix.l1, c));
}

function readTranscript(r) {
  const from = r.at;
  if (bytesToHex(r.take(8, "transcript")) !== bytesToHex(concatBytes(text("FLUTRN"), Uint8Array.of(0, 1)))) fail("no transcript");
  const head = {
    circuit: r.text("circuit"),
    matrixHash: bytesToHex(r.take(32, "matrix hash")),
    phase1Hash: bytesToHex(r.take(64, "phase-1 hash")),
    log2: r.number(1, "log2"),
    inputs: r.number(4, "inputs"),
    witnesses: r.number(4, "witnesses"),
  };
  head.bytes = r.bytes.slice(from, r.at);
  const count = r.number(2, "contributions");
  const contributions = Array.from({ length: count }, () => {
    const start = r.at;
    const kind = r.number(1, "kind");
    if (kind !== 1 && kind !== 2) fail("a contribution of no known kind");
    const name = r.text("name");
    const beacon = kind === 2 ? { value: r.take(32, "beacon").slice(), log2: r.number(1, "iterations") } : undefined;
    const [delta1] = r.points(G1, 1, true, "delta in G1");
    const [delta2] = r.points(G2, 1, true, "delta in G2");
    const claim = r.bytes.slice(start, r.at);
    const [s, sx] = r.points(G1, 2, true, "s and s x");
    const [rx] = r.points(G2, 1, true, "r x");
    return { kind, name, beacon, delta1, delta2, claim, s, sx, rx, bytes: r.bytes.slice(start, r.at) };
  });
  return { head, contributions };
}

const chain = (...parts) => blake3(concatBytes(...parts), { context: text("FLU/prover/ceremony/v1") });
const challenge = (before, c) => hashToG2(concatBytes(before, c.claim, c.s.toBytes(true), c.sx.toBytes(true)));

// Scalars of a stream, 64 bytes each; 0 and 1 are passed over.
function expand(count, key) {
  const stream = blake3(key, { context: text("FLU/prover/ceremony-beacon/v1"), dkLen: 64 * (count + 2) });
  const all = Array.from({ length: count + 2 }, (_, i) => Fr.create(little(stream.slice(64 * i, 64 * i + 64))));
  return all.filter((x) => x > 1n).slice(0, count);
}

function checkTranscript({ head, contributions }) {
  let before = chain(head.bytes);
  let [delta1, delta2] = [G, H];
  contributions.forEach((c, i) => {
    const wrong = (why) => fail(`contribution ${i + 1}: ${why}`);
    if (i > 0 && contributions[i - 1].kind === 2) wrong("follows the beacon");
    if (c.s.equals(c.sx) || c.delta1.equals(delta1)) wrong("contributes nothing");
    const r = challenge(before, c);
    if (!same([c.s, c.sx], [r, c.rx])) wrong("its proof of knowledge does not hold");
    if (!same([delta1, c.delta1], [r, c.rx])) wrong("its delta is not the one before times its factor");
    if (!same([G, c.delta1], [H, c.delta2])) wrong("its delta in G2 is not that in G1");
    if (c.beacon) {
      let hash = c.beacon.value;
      for (let n = 0; n < 2 ** c.beacon.log2; n++) hash = sha256(hash);
      const [x, y] = expand(2, concatBytes(hash, before));
      const s = times(G, y);
      const again = { s, sx: times(s, x), claim: c.claim };
      const rx = times(challenge(before, again), x);
      const made = [times(delta1, x), times(delta2, x), again.s, again.sx, rx];
      if (![c.delta1, c.delta2, c.s, c.sx, c.rx].every((p, k) => p.equals(made[k]))) wrong("is not what its beacon makes");
    }
    before = chain(before, c.bytes);
    [delta1, delta2] = [c.delta1, c.delta2];
  });
  return { delta1, delta2, hash: bytesToHex(before) };
}

function readState(bytes) {
  const body = bytes.subarray(0, bytes.length - 32);
  if (bytesToHex(blake3(body)) !== bytesToHex(bytes.subarray(bytes.length - 32))) fail("the state's checksum does not match");
  const r = new Reader(body);
  if (bytesToHex(r.take(8, "state")) !== bytesToHex(concatBytes(text("FLUCER"), Uint8Array.of(0, 1)))) fail("no ceremony file");
  const length = r.number(4, "transcript's length");
  const end = r.at + length;
  const transcript = readTranscript(r);
  if (r.at !== end) fail("the transcript's length is another");
  const h = r.points(G1, 2 ** transcript.head.log2 - 1, false, "H of the state");
  const l = r.points(G1, transcript.head.witnesses, false, "L of the state");
  r.end("the state");
  return { transcript, h, l };
}

// What stays the same while the state is tampered with is checked once.
function base(dir) {
  const read = (name) => new Uint8Array(readFileSync(join(dir, name)));
  const [phase1, matrixBytes] = [read("phase1"), read("matrices")];
  const radix = readRadix(phase1);
  checkRadix(radix);
  const matrices = readMatrices(matrixBytes);
  return { radix, matrices, phase1Hash: bytesToHex(blake512(phase1)), matrixHash: bytesToHex(blake3(matrixBytes)) };
}

function verifyState(bytes, { radix, matrices, phase1Hash, matrixHash }) {
  const { transcript, h, l } = readState(bytes);
  const { head } = transcript;
  if (head.phase1Hash !== phase1Hash) fail("the transcript names another phase 1");
  if (head.matrixHash !== matrixHash) fail("the transcript names other matrices");
  if (head.log2 !== radix.log2 || matrices.rows + matrices.inputs > radix.m) fail("phase 1 has another size");
  if (head.inputs !== matrices.inputs || head.witnesses !== matrices.witnesses) fail("the circuit has other variables");
  const result = checkTranscript(transcript);
  const rho = coefficients(h.length);
  if (!same([combine(G1, h, rho), combine(G1, radix.h, rho)], [H, result.delta2])) fail("H is not the initial one divided by delta");
  const sigma = [...new Array(matrices.inputs).fill(0n), ...coefficients(l.length)];
  const initial = combineColumns(matrices, radix, sigma);
  if (!same([combine(G1, l, sigma.slice(matrices.inputs)), initial], [H, result.delta2])) fail("L is not the initial one divided by delta");
  return { ...result, transcript };
}

function verifyKey(vkey, { radix, matrices }, result) {
  if (vkey.insecure_dev_key || vkey.transcript !== `0x${result.hash}`) fail("the key names another transcript");
  const r = new Reader(Uint8Array.from(Buffer.from(vkey.key.slice(2), "hex")));
  const [alpha] = r.points(G1, 1, true, "alpha");
  const [beta, gamma, delta] = r.points(G2, 3, true, "beta, gamma, delta");
  const ic = r.points(G1, matrices.inputs, true, "IC");
  r.end("the key");
  if (!alpha.equals(radix.alpha) || !beta.equals(radix.beta2) || !gamma.equals(H) || !delta.equals(result.delta2)) fail("the key's head");
  const rho = [...coefficients(matrices.inputs), ...new Array(matrices.witnesses).fill(0n)];
  if (!combine(G1, ic, rho.slice(0, matrices.inputs)).equals(combineColumns(matrices, radix, rho))) fail("the key's IC");
}

// ---- tampering: the checksum at the end is made anew, so that what is refused is what was changed ----

function sealed(body) {
  return concatBytes(body, blake3(body));
}
function tampered(bytes) {
  const body = () => bytes.slice(0, bytes.length - 32);
  const transcript = 12 + Number(little(bytes.subarray(8, 12)));
  const move = (at) => {
    const copy = body();
    copy.set(point(G1, copy.slice(at, at + 96), "a point").add(G).toBytes(false), at);
    return sealed(copy);
  };
  const name = body();
  const at = Buffer.from(name).indexOf("anna");
  name.set(text("Anna"), at);
  return [
    ["another name in the transcript", sealed(name)],
    ["a point of H moved", move(transcript + 96 * 5)],
    ["a point of L moved", move(bytes.length - 32 - 96)],
    ["a cut file", bytes.slice(0, bytes.length - 1)],
  ];
}

// ---- vectors ----

function vectors() {
  const [tau, alpha, beta] = [123456789n, 987654321n, 5555555555n];
  const n = 4;
  const at = powers(tau, 2 * n - 1);
  const g1 = (x) => times(G, Fr.create(x));
  const g2 = (x) => times(H, Fr.create(x));
  const bytes = (points, compressed) => concatBytes(...points.map((p) => p.toBytes(compressed)));
  const accumulator = (t, a, b, compressed) => {
    const p = powers(t, 2 * n - 1);
    return concatBytes(
      bytes(p.map(g1), compressed),
      bytes(p.slice(0, n).map(g2), compressed),
      bytes(p.slice(0, n).map((x) => g1(Fr.mul(a, x))), compressed),
      bytes(p.slice(0, n).map((x) => g1(Fr.mul(b, x))), compressed),
      bytes([g2(b)], compressed),
    );
  };
  const first = concatBytes(blake512(new Uint8Array()), accumulator(1n, 1n, 1n, false));
  const digest = blake512(first);
  const keys = [tau, alpha, beta].map((x, i) => {
    const s = g1(BigInt(1000 + i));
    const sx = times(s, x);
    return { s, sx, rx: times(hashToG2(concatBytes(Uint8Array.of(i), digest, bytes([s, sx], false))), x) };
  });
  const key = concatBytes(bytes(keys.flatMap((k) => [k.s, k.sx]), false), bytes(keys.map((k) => k.rx), false));
  const response = concatBytes(digest, accumulator(tau, alpha, beta, true), key);

  // L_i(tau) = (tau^n - 1) w^i / (n (tau - w^i))
  const w = powers(root(2), n);
  const z = Fr.sub(Fr.mul(at[n - 1], tau), 1n);
  const lagrange = w.map((wi) => Fr.div(Fr.mul(z, wi), Fr.mul(BigInt(n), Fr.sub(tau, wi))));
  const radix = concatBytes(
    bytes([g1(alpha), g1(beta)], false),
    bytes([g2(beta)], false),
    bytes(lagrange.map(g1), false),
    bytes(lagrange.map(g2), false),
    bytes(lagrange.map((x) => g1(Fr.mul(alpha, x))), false),
    bytes(lagrange.map((x) => g1(Fr.mul(beta, x))), false),
    bytes(at.slice(0, n - 1).map((x) => g1(Fr.mul(z, x))), false),
  );
  checkRadix(readRadix(radix));
  const out = {
    comment: "phase 1 of 2^2 powers in the published formats, by tests/interop/ceremony.mjs from these secrets",
    tau: tau.toString(),
    alpha: alpha.toString(),
    beta: beta.toString(),
    challenge: bytesToHex(first),
    response: bytesToHex(response),
    response_hash: bytesToHex(blake512(response)),
    phase1radix2m2: bytesToHex(radix),
    radix_hash: bytesToHex(blake512(radix)),
    hash_to_g2_abc: bytesToHex(hashToG2(text("abc")).toBytes(true)),
  };
  return `${JSON.stringify(out, null, 1)}\n`;
}

const argument = process.argv[2];
const file = fileURLToPath(new URL("../vectors/phase1.json", import.meta.url));
if (argument === "--vectors") {
  process.stdout.write(vectors());
} else if (argument === "--check") {
  if (vectors() !== readFileSync(file, "utf8")) fail(`${file} is not what this program writes`);
  console.log("ok phase1.json is what this program writes");
} else if (argument !== undefined) {
  const shared = base(argument);
  const state = new Uint8Array(readFileSync(join(argument, "state")));
  const result = verifyState(state, shared);
  verifyKey(JSON.parse(readFileSync(join(argument, "vkey.json"), "utf8")), shared, result);
  const names = result.transcript.contributions.map((c) => c.name).join(", ");
  console.log(`ok ${argument}: ${result.transcript.head.circuit} by ${names}; transcript ${result.hash}`);
  for (const [what, bytes] of tampered(state)) {
    let why;
    try {
      verifyState(bytes, shared);
    } catch (e) {
      why = e.message;
    }
    if (why === undefined) fail(`${argument}: ${what} was accepted`);
    console.log(`ok refused, ${what}: ${why}`);
  }
} else {
  console.error("usage: node ceremony.mjs --vectors | --check | DIR");
  process.exit(1);
}
