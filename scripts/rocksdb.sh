#!/usr/bin/env bash
# Builds RocksDB's static library once per machine, so that no profile and no clone builds it again.
#
#   scripts/rocksdb.sh            build it where it is missing (4 minutes of one core, 5 GB of memory), print its folder
#   scripts/rocksdb.sh --where    print the folder if the library is there, else exit 1
#
# All sources are one translation unit, as in RocksDB's own `make unity.a`: its headers, which are most of the work, are read once and
# not 343 times. Defines and flags are those of librocksdb-sys's build.rs for Linux without optional compressions.
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
    cargo fetch --locked --quiet >&2
    sources=$(cargo metadata --locked --offline --format-version 1 --all-features |
        python3 -c 'import json, os, sys
print(next(os.path.dirname(p["manifest_path"]) for p in json.load(sys.stdin)["packages"] if p["name"] == "librocksdb-sys"))')
    # The crate brings a build_version.cc of its own.
    {
        grep '\.cc$' "$sources/rocksdb_lib_sources.txt" | grep -vx 'util/build_version.cc' | sed 's/.*/#include "&"/'
        echo '#include "build_version.cc"'
    } >"$scratch/unity.cc"
    echo "rocksdb.sh: building RocksDB $version; this takes 4 minutes or so, once per machine" >&2
    case "$(uname -m)" in
    x86_64) machine=-msse2 ;;
    aarch64) machine=-march=armv8-a+crc+aes+crypto ;;
    *) machine= ;;
    esac
    # shellcheck disable=SC2086 # an empty flag is none
    (cd "$sources" && c++ -std=c++20 -O2 -g0 -fPIC -w $machine -include cstdint \
        -I. -Irocksdb -Irocksdb/include \
        -DNDEBUG=1 -DHAVE_ALIGNED_NEW -DHAVE_UINT128_EXTENSION -DOS_LINUX -DROCKSDB_PLATFORM_POSIX -DROCKSDB_LIB_IO_POSIX \
        -DROCKSDB_SCHED_GETCPU_PRESENT -DROCKSDB_AUXV_GETAUXVAL_PRESENT -DROCKSDB_FALLOCATE_PRESENT -DROCKSDB_RANGESYNC_PRESENT \
        -c "$scratch/unity.cc" -o "$scratch/unity.o") >&2
    mkdir -p "$dir"
    # Renamed into place, so that a stopped build leaves no half library.
    ar crs "$dir/.librocksdb.a.$$" "$scratch/unity.o"
    mv "$dir/.librocksdb.a.$$" "$dir/librocksdb.a"
fi
echo "$dir"
