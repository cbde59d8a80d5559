#!/usr/bin/env bash
# Cross-compiles the tests of verifier, prover and crypto for aarch64 and runs those that compare paths under qemu's user-mode emulation.
#
# What runs: blst's path against ark-groth16, its sums and quotients against ark-ec and ark-poly, rows, the verifier's decoding and checks against ark
# and ark-groth16, the Poseidon2 vectors. Circuits are the smallest there are, and flipping each bit in turn is left out: an emulated instruction costs ten
# or more. Each binary may take 15 minutes.
# Needs: scripts/bootstrap.sh aarch64.
set -euo pipefail
cd "$(dirname "$0")/.."
export FLUENCE_CACHE="${FLUENCE_CACHE:-$HOME/.cache/fluence}"
export CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-$FLUENCE_CACHE/target}"
export CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER=aarch64-linux-gnu-gcc
export CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_RUNNER="timeout 900 qemu-aarch64 -L /usr/aarch64-linux-gnu"
export CC_aarch64_unknown_linux_gnu=aarch64-linux-gnu-gcc

cargo test --locked --target aarch64-unknown-linux-gnu -p fluence-verifier -p fluence-prover -p fluence-crypto --lib -- \
    groth16:: fast:: rows:: poseidon2:: field:: --skip every_single_bit_flip
