/**
 * Poseidon2 over the scalar field of BLS12-381, width 8, as far as the digest of a query needs it.
 *
 * Source  docs/poseidon2.md, docs/protocol/tree.md; the constants are written by tests/poseidon2/generate.py
 */

import { CONSTANTS } from "./constants.js";

/** The field's order. */
export const R = 0x73eda753299d7d483339d80809a1d80553bda402fffe5bfeffffffff00000001n;

const M4 = [
  [5n, 7n, 1n, 3n],
  [4n, 6n, 1n, 1n],
  [1n, 3n, 5n, 7n],
  [1n, 1n, 4n, 6n],
];
const FULL = CONSTANTS.full.map((round) => round.map(BigInt));
const PARTIAL = CONSTANTS.partial.map(BigInt);
const DIAGONAL_MINUS_ONE = CONSTANTS.diagonal_minus_one.map(BigInt);
/** The output word of a digest. */
const DIGEST = 5;

const at = (list: readonly bigint[], i: number): bigint => list[i] ?? 0n;
const sbox = (x: bigint): bigint => {
  const fourth = (((x * x) % R) * ((x * x) % R)) % R;
  return (fourth * x) % R;
};

function external(x: readonly bigint[]): bigint[] {
  const block = (from: number): bigint[] => M4.map((row) => row.reduce((sum, m, i) => sum + m * at(x, from + i), 0n));
  const [low, high] = [block(0), block(4)];
  const both = low.map((value, i) => value + at(high, i));
  return [...low, ...high].map((value, i) => (value + at(both, i % 4)) % R);
}

function permute(x: readonly bigint[]): bigint[] {
  const round = (state: readonly bigint[], constants: readonly bigint[]): bigint[] =>
    external(state.map((value, i) => sbox((value + at(constants, i)) % R)));
  const half = FULL.length / 2;
  let state = external(x);
  for (const constants of FULL.slice(0, half)) state = round(state, constants);
  for (const constant of PARTIAL) {
    state[0] = sbox((at(state, 0) + constant) % R);
    const total = state.reduce((sum, value) => sum + value, 0n);
    state = state.map((value, i) => (total + value * at(DIAGONAL_MINUS_ONE, i)) % R);
  }
  for (const constants of FULL.slice(half)) state = round(state, constants);
  return state;
}

/** The digest of a list of scalars, each below R. */
export function digest(tag: bigint, scalars: readonly bigint[]): bigint {
  let acc = (tag << 64n) | BigInt(scalars.length);
  for (let start = 0; start < Math.max(scalars.length, 1); start += 7) {
    const block = [acc, ...Array.from({ length: 7 }, (_, i) => at(scalars, start + i))];
    acc = (at(permute(block), DIGEST) + at(block, DIGEST)) % R;
  }
  return acc;
}
