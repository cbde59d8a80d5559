#!/usr/bin/env bash
# Format, clippy with warnings denied, and two planted violations: a rule that no longer bites is worse than none.
set -euo pipefail
cd "$(dirname "$0")/.."
export CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-${FLUENCE_CACHE:-$HOME/.cache/fluence}/target}"

cargo fmt --all --check
cargo clippy --locked --workspace --all-targets --features fluence-cli/sql --quiet -- -D warnings

# The engine's own clippy.toml forbids what is not deterministic. A misspelt path there only warns, so plant one.
plant=$(mktemp -d)
trap 'rm -rf "$plant"' EXIT
mkdir -p "$plant/src"
cp engine/clippy.toml rust-toolchain.toml "$plant/"
printf '[package]\nname = "planted"\nversion = "0.0.0"\nedition = "2024"\n[workspace]\n' >"$plant/Cargo.toml"
planted() { # planted NAME CODE: clippy must refuse the code, for the rule's own reason
    printf '%s\n' "$2" >"$plant/src/lib.rs"
    if (cd "$plant" && CARGO_TARGET_DIR="$plant/target" cargo clippy --quiet -- -D warnings) 2>"$plant/log"; then
        echo "lint: planted violation passed: $1" >&2
        exit 1
    fi
    grep -q 'disallowed' "$plant/log" || { cat "$plant/log" >&2; echo "lint: $1 failed for another reason" >&2; exit 1; }
}
planted "wall clock in the engine" 'pub fn now() -> std::time::SystemTime { std::time::SystemTime::now() }'
planted "hash order in the engine" 'pub fn map() -> std::collections::HashMap<u8, u8> { std::collections::HashMap::new() }'

if command -v cargo-deny >/dev/null; then
    cargo deny check licenses bans sources
else
    echo "SKIPPED cargo-deny: not installed (cargo install cargo-deny)"
fi
echo "lint: ok"
