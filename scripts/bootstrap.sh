#!/usr/bin/env bash
# Installs what is missing, says what it does, and does nothing the second time.
#
#   scripts/bootstrap.sh rust      compiler and linker
#   scripts/bootstrap.sh node      Node.js, and the pinned npm packages (Foundry, solc, snarkjs, the TypeScript client's)
#   scripts/bootstrap.sh data      the demo's flights, checked by SHA-256
#   scripts/bootstrap.sh rocksdb   libclang for RocksDB's bindings
#   scripts/bootstrap.sh aarch64   Rust's library, C compiler and user-mode emulator for ARM
#   scripts/bootstrap.sh sql       psql, with which SQL is tried
#   scripts/bootstrap.sh drivers   a JDK and drivers for Java and Node.js, and files of sqllogictest: for the tests alone
#   scripts/bootstrap.sh all       rust, node, data and sql
#
# Needs: Debian or a relative of it, root or sudo, and the package registries. rustup is expected to be there.
set -euo pipefail
cd "$(dirname "$0")/.."

say() { printf 'bootstrap: %s\n' "$*" >&2; }
die() { say "$*"; exit 1; }

as_root() {
    if [ "$(id -u)" = 0 ]; then "$@"; elif command -v sudo >/dev/null; then sudo "$@"; else die "need root or sudo for: $*"; fi
}

apt_updated=
apt_install() {
    command -v apt-get >/dev/null || die "apt-get is missing; install by hand: $*"
    if [ -z "$apt_updated" ]; then
        as_root env DEBIAN_FRONTEND=noninteractive apt-get update -qq || die "apt-get update failed: is the registry reachable?"
        apt_updated=1
    fi
    say "installing $*"
    as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@" >/dev/null
}

# need COMMAND PACKAGE..: installs the packages where the command is missing.
need() {
    local command=$1
    shift
    command -v "$command" >/dev/null || apt_install "$@"
}

rust() {
    need cc build-essential
    need make make
    if ! command -v cargo >/dev/null && [ -x "$HOME/.cargo/bin/cargo" ]; then die "add $HOME/.cargo/bin to PATH"; fi
    command -v cargo >/dev/null || die "cargo is missing; install Rust from https://rustup.rs first"
    # rust-toolchain.toml names the release; rustup fetches it where it may.
    if ! cargo --version >/dev/null 2>&1; then
        channel=$(awk -F '"' '/^channel/ { print $2 }' rust-toolchain.toml)
        say "installing Rust $channel"
        rustup toolchain install "$channel" --profile minimal --component rustfmt --component clippy
    fi
}

# npm_packages FOLDER: installs what its lock file pins, unless that is what is there.
npm_packages() {
    local stamp="$1/node_modules/.fluence-lock"
    if ! cmp -s "$1/package-lock.json" "$stamp"; then
        say "installing the npm packages of $1"
        (cd "$1" && npm ci --no-audit --no-fund --loglevel=error >/dev/null)
        cp "$1/package-lock.json" "$stamp"
    fi
}

node() {
    need node nodejs
    need npm npm
    local major
    major=$(command node --version | sed "s/^v\([0-9]*\).*/\1/")
    [ "$major" -ge 18 ] || die "Node.js $major is too old: 18 or later is needed"
    npm_packages contracts
    npm_packages tests/interop
    npm_packages clients/typescript
}

data() {
    need python3 python3
    python3 -m pip --version >/dev/null 2>&1 || apt_install python3-pip
    python3 tests/demo/fetch_flights.py
}

sql() {
    need psql postgresql-client
    need python3 python3
    python3 -m pip --version >/dev/null 2>&1 || apt_install python3-pip
}

drivers() {
    need javac default-jdk-headless
    [ -f /usr/share/java/postgresql.jar ] || apt_install libpostgresql-jdbc-java
    need node nodejs
    need npm npm
    npm_packages tests/sql/node
    need python3 python3
    python3 tests/sql/slt_corpus.py >/dev/null || say "no files of sqllogictest: their test will say that it was skipped"
}

rocksdb() {
    rust
    need clang clang
    [ -n "$(find /usr/lib -name 'libclang*.so*' -print -quit 2>/dev/null)" ] || apt_install libclang-dev
}

aarch64() {
    rust
    need aarch64-linux-gnu-gcc gcc-aarch64-linux-gnu libc6-dev-arm64-cross
    need qemu-aarch64 qemu-user
    rustup target list --installed | grep -qx aarch64-unknown-linux-gnu || {
        say "installing Rust's library for aarch64"
        rustup target add aarch64-unknown-linux-gnu
    }
}

case "${1:-all}" in
rust | node | data | sql | drivers | rocksdb | aarch64) "$1" ;;
all)
    rust
    node
    data
    sql
    ;;
*) die "no such part: $1" ;;
esac
