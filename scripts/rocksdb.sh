#!/usr/bin/env bash
# Builds RocksDB's static library once per machine, so that no profile and no clone builds it again.
#
#   scripts/rocksdb.sh            build it where it is missing (19-25 minutes on 2 cores), print its folder
#   scripts/rocksdb.sh --where    print the folder if the library is there, else exit 1
#
# Use: ROCKSDB_LIB_DIR=$(scripts/rocksdb.sh --where) ROCKSDB_STATIC=1 cargo test -p fluence-engine --features rocksdb
set -euo pipefail
cd "$(dirname "$0")/.."

# The version in Cargo.lock decides, so that headers and library are of one release.
version=$(awk '/^name = "librocksdb-sys"$/ { getline; gsub(/[",]/, "", $3); print $3; exit }' Cargo.lock)
[ -n "$version" ] || { echo "rocksdb.sh: librocksdb-sys is not in Cargo.lock" >&2; exit 1; }
dir="${FLUENCE_CACHE:-$HOME/.cache/fluence}/rocksdb/$version"

if [ "${1:-}" = --where ]; then
    [ -f "$dir/librocksdb.a" ] || exit 1
    echo "$dir"
    exit 0
fi
if [ ! -f "$dir/librocksdb.a" ]; then
    scratch=$(mktemp -d)
    trap 'rm -rf "$scratch"' EXIT
    mkdir -p "$scratch/src"
    cp rust-toolchain.toml "$scratch/"
    printf '' >"$scratch/src/lib.rs"
    cat >"$scratch/Cargo.toml" <<TOML
[package]
name = "rocksdb-once"
version = "0.0.0"
edition = "2021"
[workspace]
[dependencies]
librocksdb-sys = { version = "=${version}", default-features = false, features = ["bindgen-runtime"] }
[profile.dev.package.librocksdb-sys]
opt-level = 2
TOML
    echo "rocksdb.sh: building RocksDB $version; this takes 20 minutes or so, once per machine" >&2
    (cd "$scratch" && env -u ROCKSDB_LIB_DIR -u ROCKSDB_STATIC CARGO_TARGET_DIR="$scratch/target" cargo build --quiet) >&2
    library=$(find "$scratch/target" -name librocksdb.a | head -n 1)
    [ -n "$library" ] || { echo "rocksdb.sh: the build left no librocksdb.a" >&2; exit 1; }
    mkdir -p "$dir"
    # Renamed into place, so that a stopped build leaves no half library.
    cp "$library" "$dir/.librocksdb.a.$$"
    mv "$dir/.librocksdb.a.$$" "$dir/librocksdb.a"
fi
echo "$dir"
