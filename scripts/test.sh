#!/usr/bin/env bash
# Runs the test suites, says which were skipped and why, and ends with one line of totals.
#
#   scripts/test.sh all | rust | vectors | contracts | interop | rocksdb | demo | sql | http   (the last four use the binary that `rust` built)
#
# A suite that cannot run on this machine prints `SKIPPED name: reason` and is counted.
set -uo pipefail
cd "$(dirname "$0")/.."
export FLUENCE_CACHE="${FLUENCE_CACHE:-$HOME/.cache/fluence}"
export CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-$FLUENCE_CACHE/target}"
export FLUENCE_KEYS="${FLUENCE_KEYS:-$FLUENCE_CACHE/keys}"
export NO_COLOR=1

log=$(mktemp)
trap 'rm -f "$log"' EXIT
passed=0
failed=()

# suite NAME COMMAND..: runs one suite and notes how it ended.
suite() {
    local name=$1 start=$SECONDS
    shift
    printf '\n== %s\n' "$name"
    if "$@" 2>&1 | tee -a "$log"; then
        passed=$((passed + 1))
        printf '== %s passed in %d s\n' "$name" $((SECONDS - start))
    else
        failed+=("$name")
        printf '== %s FAILED after %d s\n' "$name" $((SECONDS - start))
    fi
}

skip() { printf 'SKIPPED %s: %s\n' "$1" "$2" | tee -a "$log"; }

rust() {
    # Files that others wrote, for gateway/tests/slt; where they cannot be fetched, that test says that it was skipped.
    if slt=$(python3 tests/sql/slt_corpus.py); then export FLUENCE_SLT=$slt; fi
    suite rust cargo test --locked --workspace --features fluence-cli/sql --no-fail-fast
}
vectors() { suite poseidon2-generator python3 tests/poseidon2/generate.py --check; }
contracts() {
    suite contracts-artifacts bash -c 'cd contracts && node scripts/artifacts.mjs --check'
    suite contracts bash -c 'cd contracts && bin/forge test'
}
interop() { suite interop scripts/interop.sh; }
rocksdb() {
    if dir=$(scripts/rocksdb.sh --where); then
        # The conformance suite, then crashes and random logs with RocksDB as the disk.
        ROCKSDB_LIB_DIR=$dir ROCKSDB_STATIC=1 FLUENCE_CRASH_STORE=rocksdb suite rocksdb \
            cargo test --locked -p fluence-engine --features rocksdb --target-dir "$CARGO_TARGET_DIR/rocksdb" \
            --test stores --test crash --test property
    else
        skip rocksdb "its library is not built on this machine; make test-rocksdb builds it (about 4 minutes)"
    fi
}
demo() {
    suite demo scripts/demo_test.sh
    suite demo-sql python3 tests/demo/sql.py "$CARGO_TARGET_DIR/debug/fluence"
}
# Drivers that others wrote, and random statements beside SQLite. Heavier: make sql-corpus.
sql() {
    export FLUENCE="$CARGO_TARGET_DIR/debug/fluence"
    suite sql-drivers python3 tests/sql/drivers.py
    suite sql-node python3 tests/sql/others.py node
    if [ -f /usr/share/java/postgresql.jar ] && command -v java >/dev/null; then
        suite sql-jdbc python3 tests/sql/others.py jdbc
    else
        skip sql-jdbc "no JDK or no driver; scripts/bootstrap.sh drivers installs both"
    fi
    suite sql-django python3 tests/sql/frameworks.py
    suite sql-random python3 tests/sql/random_dml.py
}

# The clients for Python and TypeScript over a served cluster, and proof files.
http() {
    export FLUENCE="$CARGO_TARGET_DIR/debug/fluence"
    suite http-clients python3 tests/http/clients.py
}

case "${1:-all}" in
rust | vectors | contracts | interop | rocksdb | demo | sql | http) "$1" ;;
all)
    rust
    vectors
    contracts
    interop
    rocksdb
    demo
    sql
    http
    ;;
*)
    echo "test.sh: no such suite: $1" >&2
    exit 2
    ;;
esac

skipped=$(grep -c '^SKIPPED ' "$log")
printf '\n'
grep '^SKIPPED ' "$log"
[ ${#failed[@]} = 0 ] || printf 'failed: %s\n' "${failed[*]}"
printf 'suites: %d passed, %d failed, %d skipped\n' "$passed" ${#failed[@]} "$skipped"
[ ${#failed[@]} = 0 ]
