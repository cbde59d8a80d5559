#!/usr/bin/env node
// Writes src/libraries/Poseidon2.sol: the permutation with its round constants.
//
// Source  Poseidon2 (https://eprint.iacr.org/2023/323), BLS12-381 scalar field, t = 8, alpha = 5, 8 full and 57 partial rounds.
//         The round constants are made here by the paper's Grain LFSR (80 bits, self-shrinking, rejection above r). The diagonal of
//         the internal matrix is that of the published instance; the test reads the same vectors as Rust, so a slip shows.
// Usage   node scripts/poseidon2.mjs [--check]
import {readFileSync, writeFileSync} from "node:fs";

const R = 0x73eda753299d7d483339d80809a1d80553bda402fffe5bfeffffffff00000001n;
const T = 8, FULL = 8, PARTIAL = 57, FIELD_BITS = 255;
const DIAGONAL_MINUS_ONE = [
  0x1118b610c2544efa26b70d9d60ca6ca362afcfff12436cf3b0f8a3ec5895d9ean,
  0x5ba288c5197e71745a8fde16aca575e379dcc19f21042d8b9375e478f809325bn,
  0x079a987d87d7c80d5f4a3b4018517c50f5067ecb516f6bd14d79eabaa8349e62n,
  0x4c6497b0b99e1f1af4ec0322dc38869b2dfb79db3ab5fa68936cc8b6025aad1fn,
  0x483b5c5071e90c98bd353556453f04113442f29a1c4c236b4ca31890136bee4dn,
  0x3ef76c8bae0aa755dde594d8ec22b157f913323e5b29bbd0652e4b74973ac8f9n,
  0x091767b280c59a58a39f293bfc22ae944cb921c2efa240262b5b66312724f20bn,
  0x45ef82a5684137e5fc9613e0581cb65b5ad3d43470eacf0f060e1711c4c57623n,
];

function* grain() {
  const s = [];
  const put = (value, width) => { for (let i = width - 1; i >= 0; i--) s.push((value >> i) & 1); };
  put(1, 2); put(0, 4); put(FIELD_BITS, 12); put(T, 12); put(FULL, 10); put(PARTIAL, 10); put(2 ** 30 - 1, 30);
  const step = () => { const b = s[62] ^ s[51] ^ s[38] ^ s[23] ^ s[13] ^ s[0]; s.shift(); s.push(b); return b; };
  for (let i = 0; i < 160; i++) step();
  for (;;) { while (step() === 0) step(); yield step(); }
}
const bits = grain();
const constant = () => {
  for (;;) {
    let v = 0n;
    for (let i = 0; i < FIELD_BITS; i++) v = (v << 1n) | BigInt(bits.next().value);
    if (v < R) return v;
  }
};
const words = Array.from({length: FULL * T + PARTIAL}, constant);
const hex = (v) => v.toString(16).padStart(64, "0");

// The diagonal lies behind the round constants. Neither it nor r is a literal in the loops: at few optimizer runs the compiler
// would recompute such literals each time they are used.
const lines = [...words, ...DIAGONAL_MINUS_ONE].map((w) => `        hex"${hex(w)}"`).join("\n");
const half = (FULL / 2) * T * 32, partialEnd = half + PARTIAL * 32, end = words.length * 32;
const load = Array.from({length: T}, (_, i) => `            let s${i} := mload(add(s, ${32 * i}))`).join("\n");
const store = Array.from({length: T}, (_, i) => `            mstore(add(s, ${32 * i}), addmod(s${i}, 0, r))`).join("\n");
// One statement an addition: nested, the stack is too deep.
const sum = Array.from({length: T - 1}, (_, i) => `                t := addmod(${i ? "t" : "s0"}, s${i + 1}, r)`).join("\n");
const diagonal = DIAGONAL_MINUS_ONE.map((_, i) => `                s${i} := add(mulmod(s${i}, mload(add(constants, ${32 + end + 32 * i})), r), t)`).join("\n");

const text = `// SPDX-License-Identifier: Apache-2.0 OR MIT
// Written by scripts/poseidon2.mjs; change that and run it again.
pragma solidity 0.8.37;

/// @title Poseidon2 over the scalar field of BLS12-381: eight words, alpha 5, 8 full and 57 partial rounds.
/// @notice \`compress(kind, x) = permute(x)[kind] + x[kind]\`: every kind of node reads its own output word, so no value of one
/// kind passes for another. The kinds are those of \`types::tree::NodeKind\`.
/// @dev Source: https://eprint.iacr.org/2023/323; constants from its Grain LFSR. About 50k gas a permutation.
library Poseidon2 {
    /// @notice The order r of the scalar field.
    uint256 internal constant R = 0x${hex(R)};
    /// @notice Output word of an inner node of a sum tree.
    uint256 internal constant SUM = 2;
    /// @notice Output word of a holdings root.
    uint256 internal constant HOLDINGS = 7;

    /// @dev ${FULL / 2} full rounds of ${T} words, ${PARTIAL} partial rounds of one, ${FULL / 2} full rounds of ${T}; then the
    /// diagonal of the internal matrix less one.
    bytes private constant CONSTANTS =
${lines};

    /// @notice Puts the round constants in memory, once for any number of permutations.
    function load() internal pure returns (bytes memory constants) {
        constants = CONSTANTS;
    }

    /// @notice \`permute(x)[word] + x[word]\`. Every word of \`x\` is below R, \`word\` below 8; \`x\` is overwritten.
    /// @param constants As \`load\` gave them.
    function compress(bytes memory constants, uint256 word, uint256[8] memory x) internal pure returns (uint256) {
        uint256 before = x[word];
        permute(constants, x);
        return addmod(x[word], before, R);
    }

    /// @notice The permutation, in place.
    /// @param constants As \`load\` gave them.
    function permute(bytes memory constants, uint256[8] memory s) internal pure {
        assembly ("memory-safe") {
            function quarter(r, x0, x1, x2, x3) -> y0, y1, y2, y3 {
                let t0 := addmod(x0, x1, r)
                let t1 := addmod(x2, x3, r)
                y0 := addmod(mulmod(2, x3, r), t0, r)
                y2 := addmod(mulmod(2, x1, r), t1, r)
                y3 := addmod(mulmod(4, t1, r), y0, r)
                y1 := addmod(mulmod(4, t0, r), y2, r)
                y0 := addmod(y0, y1, r)
                y2 := addmod(y2, y3, r)
            }
            function mix(r, p, a, b) {
                let t := addmod(a, b, r)
                mstore(p, addmod(a, t, r))
                mstore(add(p, 128), addmod(b, t, r))
            }
            function linear(r, p) {
                let a0, a1, a2, a3 := quarter(r, mload(p), mload(add(p, 32)), mload(add(p, 64)), mload(add(p, 96)))
                let q := add(p, 128)
                let b0, b1, b2, b3 := quarter(r, mload(q), mload(add(q, 32)), mload(add(q, 64)), mload(add(q, 96)))
                mix(r, p, a0, b0)
                mix(r, add(p, 32), a1, b1)
                mix(r, add(p, 64), a2, b2)
                mix(r, add(p, 96), a3, b3)
            }
            function full(r, p, c) {
                let after_ := add(p, 256)
                for { let q := p } lt(q, after_) { q := add(q, 32) } {
                    let v := addmod(mload(q), mload(c), r)
                    let t := mulmod(v, v, r)
                    mstore(q, mulmod(mulmod(t, t, r), v, r))
                    c := add(c, 32)
                }
                linear(r, p)
            }
            let r := R
            linear(r, s)
            for { let c := add(constants, 32) } lt(c, add(constants, ${32 + half})) { c := add(c, 256) } { full(r, s, c) }
            // Words 1..7 may stay below 2r between partial rounds: addmod and mulmod take any word.
${load}
            for { let c := add(constants, ${32 + half}) } lt(c, add(constants, ${32 + partialEnd})) { c := add(c, 32) } {
                s0 := addmod(s0, mload(c), r)
                let t := mulmod(s0, s0, r)
                s0 := mulmod(mulmod(t, t, r), s0, r)
${sum}
${diagonal}
            }
${store}
            for { let c := add(constants, ${32 + partialEnd}) } lt(c, add(constants, ${32 + end})) { c := add(c, 256) } { full(r, s, c) }
        }
    }
}
`;
const target = new URL("../src/libraries/Poseidon2.sol", import.meta.url);
if (process.argv.includes("--check")) {
  if (readFileSync(target, "utf8") !== text) { console.error("src/libraries/Poseidon2.sol is stale: run node scripts/poseidon2.mjs"); process.exit(1); }
} else {
  writeFileSync(target, text);
}
