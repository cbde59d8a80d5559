#!/usr/bin/env bash
# Proofs, the key ceremony, and the vectors of votes and phase 1, checked by tools we did not write: snarkjs and @noble/curves (tests/interop).
set -euo pipefail
cd "$(dirname "$0")/.."
out=$(mktemp -d)
trap 'rm -rf "$out"' EXIT
FLUENCE_INTEROP_DIR="$out" cargo test --locked --workspace --features fluence-cli/sql --test prove --test ceremony export_for_other_tools -- --exact
node tests/interop/verify.mjs "$out"
node tests/interop/votes.mjs --check
node tests/interop/ceremony.mjs --check
node tests/interop/ceremony.mjs "$out/ceremony"
