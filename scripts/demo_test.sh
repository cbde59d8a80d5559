#!/usr/bin/env bash
# The demo as a test: it plays, its report is checked against the CSV, and its proofs are checked by tools we did not write.
set -euo pipefail
cd "$(dirname "$0")/.."
fluence="$CARGO_TARGET_DIR/debug/fluence"
demo=${1:-target/demo}

if [ $# = 0 ]; then
    # As the other suites build it: the command alone has other features, and all of it would be compiled again.
    cargo test --locked --workspace --features fluence-cli/sql --no-run --test refusals
    "$fluence" demo --out "$demo"
fi
python3 tests/demo/check_report.py "$demo/report.json"

exported=$(mktemp -d)
trap 'rm -rf "$exported"' EXIT
"$fluence" proofs export "$demo/range_sum-may-distance.json" --format snarkjs --out "$exported/range_sum"
"$fluence" proofs export "$demo/storage-epoch1-node-1.json" --format snarkjs --out "$exported/storage"
node tests/interop/verify.mjs "$exported"
