#!/usr/bin/env bash
# Proofs checked by tools we did not write: snarkjs and @noble/curves (tests/interop).
set -euo pipefail
cd "$(dirname "$0")/.."
out=$(mktemp -d)
trap 'rm -rf "$out"' EXIT
FLUENCE_INTEROP_OUT="$out" cargo test --locked -q -p fluence-prover --test interop
node tests/interop/verify.mjs "$out"
