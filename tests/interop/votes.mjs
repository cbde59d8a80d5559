// Writes tests/vectors/votes.json: vote keys, votes, member lists and certificates, made with @noble/curves and @noble/hashes alone.
//
// Usage   node votes.mjs > ../vectors/votes.json
//         node votes.mjs --check            exit 1 if the file differs
// Reads   docs/protocol and the draft below, not our Rust: `crypto/src/vote/tests.rs` holds the Rust to what this writes.
// Source  draft-irtf-cfrg-bls-signature-05, sections 2.3, 2.6 and 3.3 (minimal-signature-size, proof of possession)

import { readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { bls12_381 } from "@noble/curves/bls12-381.js";
import { ed25519 } from "@noble/curves/ed25519.js";
import { blake3 } from "@noble/hashes/blake3.js";
import { expand, extract } from "@noble/hashes/hkdf.js";
import { sha256 } from "@noble/hashes/sha2.js";
import { keccak_256 } from "@noble/hashes/sha3.js";
import { bytesToHex, concatBytes, hexToBytes } from "@noble/hashes/utils.js";

const { G1, G2, fields } = bls12_381;
const text = (s) => new TextEncoder().encode(s);
const hex = (bytes) => `0x${bytesToHex(bytes)}`;
const bigEndian = (n, length) => hexToBytes(n.toString(16).padStart(2 * length, "0"));
const littleEndian = (n, length) => bigEndian(BigInt(n), length).reverse();

const VOTE_SUITE = "BLS_SIG_BLS12381G1_XMD:SHA-256_SSWU_RO_POP_";
const POSSESSION_SUITE = "BLS_POP_BLS12381G1_XMD:SHA-256_SSWU_RO_POP_";

// KeyGen of the draft, over the key that BLAKE3 derives from the identity seed.
function secretKey(seed) {
  const material = blake3(seed, { context: text("FLU/crypto/key-vote/v1") });
  let salt = text("BLS-SIG-KEYGEN-SALT-");
  for (;;) {
    salt = sha256(salt);
    const okm = expand(sha256, extract(sha256, concatBytes(material, new Uint8Array(1)), salt), new Uint8Array([0, 48]), 48);
    const key = BigInt(hex(okm)) % fields.Fr.ORDER;
    if (key !== 0n) return key;
  }
}

const sign = (key, message, DST) => G1.hashToCurve(message, { DST }).multiply(key);
const g1 = ({ x, y }) => concatBytes(bigEndian(x, 64), bigEndian(y, 64));
const g2 = ({ x, y }) => concatBytes(...[x.c0, x.c1, y.c0, y.c1].map((c) => bigEndian(c, 64)));

function member(byte) {
  const seed = new Uint8Array(32).fill(byte);
  const key = secretKey(seed);
  const node = ed25519.getPublicKey(seed);
  const point = G2.Point.BASE.multiply(key);
  const voteKeyEip2537 = g2(point.toAffine());
  const possession = sign(key, concatBytes(text("FLU/crypto/possession/v1"), node, voteKeyEip2537), POSSESSION_SUITE);
  return { seed, key, node, voteKey: point.toBytes(true), voteKeyEip2537, possession: possession.toBytes(true) };
}

function uvarint(n) {
  const out = [];
  for (n = BigInt(n); n >= 0x80n; n >>= 7n) out.push(Number(n & 0x7fn) | 0x80);
  return new Uint8Array([...out, Number(n)]);
}

function message({ db, epoch, view, vote, parentView, block }) {
  const namespace = concatBytes(text("FLU/crypto/vote/v1"), db, text(`_${vote.toUpperCase()}`));
  const head = concatBytes(uvarint(namespace.length), namespace, uvarint(epoch), uvarint(view));
  return vote === "nullify" ? head : concatBytes(head, uvarint(parentView), block);
}

const pattern = (tag, length) => sha256(text(`vector ${tag}`)).slice(0, length);
const number = (n) => `0x${BigInt(n).toString(16).padStart(64, "0")}`;
const out = [];

const members = [1, 2, 3, 4].map(member).sort((a, b) => (bytesToHex(a.node) < bytesToHex(b.node) ? -1 : 1));
for (const { seed, node, voteKey, voteKeyEip2537, possession } of members) {
  const [s, n, k, e, p] = [seed, node, voteKey, voteKeyEip2537, possession].map(hex);
  out.push({ kind: "member", seed: s, node: n, voteKey: k, voteKeyEip2537: e, possession: p });
}
const list = members.flatMap((m) => [m.node, m.voteKeyEip2537]);
out.push({ kind: "members", hash: hex(keccak_256(concatBytes(text("FLU/crypto/members/v1"), ...list))) });

const votes = [
  { vote: "notarize", epoch: 0, view: 1, parentView: 0 },
  { vote: "nullify", epoch: 0, view: 127, parentView: 0 },
  { vote: "nullify", epoch: 128, view: 16384, parentView: 0 },
  { vote: "finalize", epoch: 300, view: 128, parentView: 127 },
  { vote: "finalize", epoch: 2n ** 32n, view: 2n ** 40n, parentView: 2n ** 40n - 3n },
];
votes.forEach((v, i) => {
  const { seed, key } = members[i % members.length];
  const vote = { ...v, db: pattern(`db ${i}`, 16), block: pattern(`block ${i}`, 32) };
  const bytes = message(vote);
  const signature = sign(key, bytes, VOTE_SUITE);
  out.push({
    kind: "vote", seed: hex(seed), vote: v.vote, db: hex(vote.db), epoch: number(v.epoch), view: number(v.view),
    parentView: number(v.parentView), block: hex(vote.block), message: hex(bytes),
    signature: hex(signature.toBytes(true)), signatureEip2537: hex(g1(signature.toAffine())),
  });
});

// Three of four, then all; heights in the middle of an epoch and at its end.
[{ height: 130, signers: 0b1011 }, { height: 191, signers: 0b1111 }].forEach(({ height, signers }, i) => {
  const h = {
    db: pattern(`cluster ${i}`, 16), epoch: 2, height, parent: pattern(`parent ${i}`, 32), timestampMs: 1_700_000_000_000 + i,
    opsHash: pattern(`ops ${i}`, 32), executedHeight: height - 1,
    executedRoot: bigEndian(BigInt(hex(pattern(`root ${i}`, 32))) % fields.Fr.ORDER, 32), nextMembersHash: pattern(`next ${i}`, 32),
  };
  const header = concatBytes(
    h.db, littleEndian(h.epoch, 8), littleEndian(h.height, 8), h.parent, littleEndian(h.timestampMs, 8), h.opsHash,
    littleEndian(h.executedHeight, 8), h.executedRoot, h.nextMembersHash,
  );
  const blockHash = keccak_256(concatBytes(text("FLU/crypto/block/v1"), header));
  const [view, parentView] = [height - 100, height - 102];
  const bytes = message({ db: h.db, epoch: h.epoch, view, vote: "finalize", parentView, block: blockHash });
  const by = members.filter((_, at) => signers & (1 << at));
  const signature = by.map((m) => sign(m.key, bytes, VOTE_SUITE)).reduce((a, b) => a.add(b));
  out.push({
    kind: "certificate", db: hex(h.db), epoch: number(h.epoch), height: number(h.height), parent: hex(h.parent),
    timestampMs: number(h.timestampMs), opsHash: hex(h.opsHash), executedHeight: number(h.executedHeight),
    executedRoot: hex(h.executedRoot), nextMembersHash: hex(h.nextMembersHash), header: hex(header), blockHash: hex(blockHash),
    view: number(view), parentView: number(parentView), signers, signature: hex(signature.toBytes(true)),
    signatureEip2537: hex(g1(signature.toAffine())),
  });
});

const made = `${JSON.stringify(out, null, 1)}\n`;
if (process.argv[2] === "--check") {
  const file = fileURLToPath(new URL("../vectors/votes.json", import.meta.url));
  if (readFileSync(file, "utf8") !== made) {
    console.error("tests/vectors/votes.json is not what votes.mjs writes");
    process.exit(1);
  }
  console.log(`votes: ${out.length} vectors are as @noble/curves makes them`);
} else {
  process.stdout.write(made);
}
