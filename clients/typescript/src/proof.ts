/**
 * Proof files: read under limits, and checked against a key that did not come with the proof.
 *
 * Rule    the key inside a proof file is for other tools. Yours comes from a key file (fluence-vkey/1) that you trust.
 * Rule    what the context determines is computed again, so that you may believe the context of a file that is accepted. The height is
 *         the prover's word: compare `root` with the one that a certificate names.
 * Source  docs/protocol/proof-file.md, statements.md; curves and hashes by @noble/curves and @noble/hashes
 */

import { bls12_381 } from "@noble/curves/bls12-381.js";
import { blake3 } from "@noble/hashes/blake3.js";
import { keccak_256 } from "@noble/hashes/sha3.js";
import { bytesToHex, hexToBytes } from "@noble/hashes/utils.js";
import { ProofRefused } from "./errors.js";
import { R, digest } from "./poseidon2.js";

const PROOF_FILE_BYTES_MAX = 1 << 20;
const KEY_FILE_BYTES_MAX = 16 << 10;
const COUNT_BITS = 40;
const PROJECTIONS_MAX = 1 << 12;
const LANES_MAX = 256;
const RANGE_SUM_TAG = 2n;
const { G1, G2, fields } = bls12_381;

/** A number is the sum of one lane between two positions of every live segment. On sealed lanes the number is masked. */
export interface RangeSum {
  readonly kind: "range_sum";
  readonly db: string;
  readonly projection: number;
  readonly lane: number;
  /** Of every live segment, the first position and the one after the last. */
  readonly ranges: readonly (readonly [lo: number, hi: number])[];
  /** As the prover says; the proof does not bind it. */
  readonly height: number;
  /** The database's root, to be compared with a certificate's. */
  readonly root: bigint;
  readonly sum: bigint;
}

/** A node had the cells that the seed picks from everything under a root. */
export interface Storage {
  readonly kind: "storage";
  readonly chainId: number;
  readonly contract: string;
  readonly node: string;
  readonly epoch: number;
  readonly beacon: string;
  readonly proofIndex: number;
  readonly root: bigint;
  readonly totalCells: bigint;
}

/** A proof file that was accepted. */
export interface Proven {
  readonly circuit: string;
  readonly fingerprint: string;
  /** The key was made on one machine: whoever made it can forge. */
  readonly insecureDevKey: boolean;
  readonly statement: RangeSum | Storage;
}

type Fields = Record<string, unknown>;

const refuse = (why: string): never => {
  throw new ProofRefused(why);
};

/**
 * What a proof file shows, under the key of a key file that you trust. Both are the files' contents.
 * Throws ProofRefused where anything about it does not hold.
 */
export function verifyProofFile(proof: string | Uint8Array, key: string | Uint8Array): Proven {
  const file = parse(proof, PROOF_FILE_BYTES_MAX, "proof file");
  const trusted = parse(key, KEY_FILE_BYTES_MAX, "key file");
  const names = ["format", "curve", "protocol", "circuit", "fingerprint", "insecure_dev_key", "public_inputs", "context", "proof", "verification_key"];
  check(file, names, "the file");
  for (const [name, want] of [["format", "fluence-proof/1"], ["curve", "bls12381"], ["protocol", "groth16"]] as const) {
    if (file[name] !== want) refuse(`field ${name} is not "${want}"`);
  }
  const circuit = String(file["circuit"]);
  const shape = shapeOf(file["circuit"]);
  const words = file["public_inputs"];
  if (!Array.isArray(words) || words.length !== 3) return refuse("a statement has 3 public inputs");
  const inputs = words.map((word: unknown) => number(hex(word, 32, "a public input")));
  if (inputs.some((input) => input >= R)) refuse("a public input is not below the field's order");
  const statement = statementOf(shape, file["context"], inputs);
  // What the file carries is read as it is by other tools, and must be what it says. It is not trusted by that.
  keyOf(file["verification_key"], file["fingerprint"]);
  const bare = ["format", "circuit", "fingerprint", "insecure_dev_key", "key"];
  check(trusted, "transcript" in trusted ? [...bare, "transcript"] : bare, "the key file");
  if (trusted["format"] !== "fluence-vkey/1") refuse('the key file\'s format is not "fluence-vkey/1"');
  const dev = (trusted["transcript"] ?? null) === null;
  if (trusted["insecure_dev_key"] !== dev) refuse("a key has a transcript, or is a development key");
  const fingerprint = `0x${bytesToHex(hex(file["fingerprint"], 32, "a fingerprint"))}`;
  if (trusted["circuit"] !== circuit || `0x${bytesToHex(hex(trusted["fingerprint"], 32, "a fingerprint"))}` !== fingerprint) {
    refuse("the proof is under another key, or of another circuit, than the key file's");
  }
  const points = keyOf(trusted["key"], trusted["fingerprint"]);
  if (file["insecure_dev_key"] !== dev) refuse("the file says of its key, whether it is a development key, what the key file does not");
  pairing(points, inputs, hex(file["proof"], 192, "a proof"));
  return { circuit, fingerprint, insecureDevKey: dev, statement };
}

// --- form

function parse(source: string | Uint8Array, limit: number, what: string): Fields {
  const bytes = typeof source === "string" ? new TextEncoder().encode(source) : source;
  if (bytes.length > limit) refuse(`a ${what} has at most ${limit} bytes`);
  let value: unknown;
  try {
    value = JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(bytes));
  } catch (error) {
    return refuse(`the ${what} is no JSON: ${String(error)}`);
  }
  return object(value, `the ${what}`);
}

function object(value: unknown, what: string): Fields {
  return typeof value === "object" && value !== null && !Array.isArray(value) ? (value as Fields) : refuse(`${what} is no JSON object`);
}

function check(value: Fields, names: readonly string[], what: string): void {
  const found = Object.keys(value);
  if (found.length !== names.length || !names.every((name) => Object.hasOwn(value, name))) refuse(`${what} has other fields than ${names.join(", ")}`);
}

function hex(text: unknown, size: number, what: string): Uint8Array {
  const digits = typeof text === "string" ? text.replace(/^0x/, "") : "";
  return digits.length === 2 * size && /^[0-9a-fA-F]+$/.test(digits) ? hexToBytes(digits) : refuse(`${what} is not ${size} bytes of hexadecimal digits`);
}

const number = (bytes: Uint8Array): bigint => BigInt(`0x${bytesToHex(bytes)}`);

/** JSON numbers above 2^53 would lose digits, and are refused; no count, height or epoch gets there. */
function whole(value: unknown, below: number, what: string): number {
  return typeof value === "number" && Number.isSafeInteger(value) && value >= 0 && value < below ? value : refuse(`${what} is no number below ${below}`);
}

/** The numbers in a circuit's name, which has one spelling. */
function shapeOf(circuit: unknown): { storage?: number[]; segments?: number } {
  const n = "(0|[1-9][0-9]{0,3})";
  const text = typeof circuit === "string" ? circuit : "";
  const found = new RegExp(`^storage/v2/k${n}-h${n}-d${n}-t${n}$`).exec(text) ?? new RegExp(`^range_sum/v1/s${n}-t${n}$`).exec(text);
  const numbers = (found?.slice(1) ?? []).map(Number);
  if (numbers.length === 0 || numbers.some((value) => value > 1024)) refuse("no circuit is called so");
  return numbers.length === 4 ? { storage: numbers } : { segments: numbers[0] ?? 0 };
}

// --- statement

function statementOf(shape: ReturnType<typeof shapeOf>, said: unknown, inputs: readonly bigint[]): RangeSum | Storage {
  const context = object(said, "the context");
  const [root = 0n, second = 0n, third = 0n] = inputs;
  if (context["statement"] === "range_sum" && shape.segments !== undefined) return rangeSum(shape.segments, context, root, second, third);
  if (context["statement"] === "storage" && shape.storage !== undefined) return storage(shape.storage, context, root, second, third);
  return refuse("the context is of another statement than the circuit");
}

function rangeSum(segments: number, context: Fields, root: bigint, bound: bigint, sum: bigint): RangeSum {
  check(context, ["statement", "height", "db", "query"], "the context");
  const query = object(context["query"], "the query");
  check(query, ["db", "projection", "lane", "ranges"], "the query");
  const db = number(hex(query["db"], 16, "a database's id"));
  if (db !== number(hex(context["db"], 16, "a database's id"))) refuse("the query is for another database");
  const projection = whole(query["projection"], PROJECTIONS_MAX, "projection");
  const lane = whole(query["lane"], LANES_MAX, "lane");
  const given = query["ranges"];
  if (!Array.isArray(given) || given.length > segments) return refuse("more ranges than the shape has segments");
  const ranges = given.map((one: unknown) => {
    const range = object(one, "a range");
    check(range, ["lo", "hi"], "a range");
    const [lo, hi] = [whole(range["lo"], 2 ** COUNT_BITS, "lo"), whole(range["hi"], 2 ** COUNT_BITS, "hi")];
    if (lo > hi) refuse("a range ends before it begins");
    return [lo, hi] as const;
  });
  const words = [db, BigInt(projection), BigInt(lane), ...ranges.map(([lo, hi]) => BigInt(lo) | (BigInt(hi) << 40n))];
  if (digest(RANGE_SUM_TAG, words) !== bound) refuse("the query does not make the second input");
  const height = whole(context["height"], Number.MAX_SAFE_INTEGER, "height");
  return { kind: "range_sum", db: `0x${db.toString(16).padStart(32, "0")}`, projection, lane, ranges, height, root, sum };
}

function storage(shape: readonly number[], context: Fields, root: bigint, totalCells: bigint, bound: bigint): Storage {
  check(context, ["statement", "seed"], "the context");
  const seed = object(context["seed"], "the seed");
  check(seed, ["chain_id", "contract", "node", "epoch", "beacon", "shape", "proof_index"], "the seed");
  // The exact word goes into the seed, whatever became of its digits in JSON.
  const packed = shape.reduce((word, level) => (word << 16n) | BigInt(level), 0n);
  if (seed["shape"] !== Number(packed)) refuse("the seed names another shape");
  const chainId = whole(seed["chain_id"], Number.MAX_SAFE_INTEGER, "chain_id");
  const epoch = whole(seed["epoch"], Number.MAX_SAFE_INTEGER, "epoch");
  const proofIndex = whole(seed["proof_index"], 2 ** 32, "proof_index");
  const [contract, node, beacon] = [hex(seed["contract"], 20, "a contract"), hex(seed["node"], 32, "a node's id"), hex(seed["beacon"], 32, "a beacon")];
  const words = [BigInt(chainId), number(contract), number(node), BigInt(epoch), number(beacon), packed, BigInt(proofIndex)];
  const hashed = keccak_256(hexToBytes(words.map((word) => word.toString(16).padStart(64, "0")).join("")));
  if ((number(hashed) & ((1n << 253n) - 1n)) !== bound) refuse("the seed's parts do not make the third input");
  if (totalCells < 1n || totalCells >= 1n << BigInt(COUNT_BITS)) refuse("the second input is no count of cells");
  const named = { contract: `0x${bytesToHex(contract)}`, node: `0x${bytesToHex(node)}`, beacon: `0x${bytesToHex(beacon)}` };
  return { kind: "storage", chainId, epoch, proofIndex, root, totalCells, ...named };
}

// --- curve

type P1 = InstanceType<typeof G1.Point>;
type P2 = InstanceType<typeof G2.Point>;

interface Key {
  readonly alpha: P1;
  readonly beta: P2;
  readonly gamma: P2;
  readonly delta: P2;
  /** One more than there are inputs. */
  readonly ic: readonly P1[];
}

/** A point of its group: on the curve, in the subgroup, not infinity, in its one encoding. */
function point<P extends P1 | P2>(group: { fromBytes(bytes: Uint8Array): P }, bytes: Uint8Array, what: string): P {
  try {
    const found = group.fromBytes(bytes);
    found.assertValidity();
    if (!found.is0() && bytesToHex(found.toBytes(true)) === bytesToHex(bytes)) return found;
  } catch (error) {
    return refuse(`${what} is no point: ${String(error)}`);
  }
  return refuse(`${what} is no point of the group in its one encoding`);
}

function keyOf(text: unknown, fingerprint: unknown): Key {
  const data = hex(text, 48 + 3 * 96 + 4 * 48, "a key");
  if (bytesToHex(blake3(data)) !== bytesToHex(hex(fingerprint, 32, "a fingerprint"))) refuse("the fingerprint is another key's");
  const one = (from: number): P1 => point<P1>(G1.Point, data.slice(from, from + 48), "a part of the key");
  const two = (from: number): P2 => point<P2>(G2.Point, data.slice(from, from + 96), "a part of the key");
  return { alpha: one(0), beta: two(48), gamma: two(144), delta: two(240), ic: [336, 384, 432, 480].map(one) };
}

/** e(-A, B) e(alpha, beta) e(IC_0 + sum x_i IC_i, gamma) e(C, delta) = 1. */
function pairing(key: Key, inputs: readonly bigint[], proof: Uint8Array): void {
  const [first, ...rest] = key.ic;
  const total = rest.reduce((sum, part, i) => {
    const input = inputs[i] ?? 0n;
    return input === 0n ? sum : sum.add(part.multiply(input));
  }, first ?? G1.Point.ZERO);
  const pairs = [
    { g1: point<P1>(G1.Point, proof.slice(0, 48), "A").negate(), g2: point<P2>(G2.Point, proof.slice(48, 144), "B") },
    { g1: key.alpha, g2: key.beta },
    { g1: total, g2: key.gamma },
    { g1: point<P1>(G1.Point, proof.slice(144), "C"), g2: key.delta },
  ];
  // A sum of zero adds nothing, and the library takes no point at infinity.
  const product = bls12_381.pairingBatch(pairs.filter(({ g1 }) => !g1.is0()));
  if (!fields.Fp12.eql(product, fields.Fp12.ONE)) refuse("the proof does not hold");
}
