# Fluence: the commands a newcomer, a developer and CI use. `make help` lists them.
#
# The target folder is shared by all clones of this machine, so that a fresh clone builds only our own crates;
# set CARGO_TARGET_DIR to build elsewhere.
SHELL := /bin/bash
.DEFAULT_GOAL := help

export FLUENCE_CACHE ?= $(HOME)/.cache/fluence
export CARGO_TARGET_DIR ?= $(FLUENCE_CACHE)/target
export FLUENCE_KEYS ?= $(FLUENCE_CACHE)/keys
FLUENCE := $(CARGO_TARGET_DIR)/debug/fluence

# Seeds of `make sim` and `make chaos`: how many, and the first.
SEEDS ?= 100
SEED0 ?= 1
chaos: SEEDS = 10

.PHONY: help bootstrap build build-sql demo sim sim-planted chaos sql-corpus test test-fast test-slow test-rocksdb test-aarch64 check lint bench bench-idle bench-sql bench-compare release contracts artifacts clean

help: ## what there is
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-14s %s\n", $$1, $$2 }' Makefile

bootstrap: ## install what is missing (apt, npm, the demo's data); repeats do nothing
	@scripts/bootstrap.sh all

build: ## build the `fluence` binary, without SQL
	@scripts/bootstrap.sh rust
	cargo build --locked -p fluence-cli

build-sql: ## build it with `fluence sql`: the planner takes some ten minutes more the first time
	@scripts/bootstrap.sh rust
	cargo build --locked -p fluence-cli --features sql

demo: ## set up everything and run the whole story; DEMO_SEED=n and DAMAGE=none are honoured
	@scripts/bootstrap.sh all
	cargo build --locked -p fluence-cli
	$(FLUENCE) demo --out target/demo
	@echo "building SQL: the planner takes some ten minutes the first time"
	cargo build --locked -p fluence-cli --features sql
	@python3 tests/demo/sql.py $(FLUENCE)

sim: ## clusters under faults in virtual time: SEEDS=n (how many) SEED0=n (the first); the same give the same digest
	@scripts/bootstrap.sh rust
	cargo build --locked -p fluence-sim
	$(CARGO_TARGET_DIR)/debug/fluence-sim --seeds $(SEEDS) --seed0 $(SEED0) --table

chaos: ## real nodes under faults, and the history checked: SEEDS=n SEED0=n; root adds full disks and cut networks
	@scripts/bootstrap.sh rust
	cargo build --locked -p fluence-cli -p fluence-chaos
	$(CARGO_TARGET_DIR)/debug/fluence-chaos --fluence $(FLUENCE) --seeds $(SEEDS) --seed0 $(SEED0) --table

sim-planted: ## each of five bugs, put in on purpose, is looked for in 300 seeds; SEED0=n (the first)
	@scripts/bootstrap.sh rust
	cargo build --locked -p fluence-sim
	for bug in short-quorum unchecked-root drained-mempool lost-vote-journal bad-page; do \
		$(CARGO_TARGET_DIR)/debug/fluence-sim --planted $$bug --seeds 300 --seed0 $(SEED0) || exit 1; \
	done

sql-corpus: build-sql ## SQL at length: TPC-H beside DuckDB (SF=0.1), random statements beside SQLite (SEED=n STATEMENTS=n), sqllogictest
	@scripts/bootstrap.sh sql
	@scripts/bootstrap.sh drivers
	FLUENCE_SLT=$$(python3 tests/sql/slt_corpus.py) cargo test --locked --workspace --features fluence-cli/sql --test slt -- --include-ignored --nocapture
	SF=$${SF:-0.1} python3 tests/sql/tpch/run.py $(FLUENCE)
	STATEMENTS=$${STATEMENTS:-3000} FLUENCE=$(FLUENCE) python3 tests/sql/random_dml.py

test: ## set up everything and run every test
	@scripts/bootstrap.sh all
	@scripts/bootstrap.sh drivers
	@scripts/test.sh all

test-fast: ## the Rust tests alone
	@scripts/test.sh rust

test-slow: ## the tests marked slow: full-size shapes, long property runs
	cargo test --locked --workspace --features fluence-cli/sql -- --ignored slow # not the tests that write vectors

test-rocksdb: ## the store suite on RocksDB; builds its library once per machine (about 4 minutes)
	@scripts/bootstrap.sh rocksdb
	@scripts/rocksdb.sh >/dev/null
	@scripts/test.sh rocksdb

test-aarch64: ## prover, verifier and field arithmetic as an ARM processor runs them, under qemu: small circuits
	@scripts/bootstrap.sh aarch64
	@scripts/aarch64.sh

check: lint test-fast ## what to run before each commit: format, clippy with warnings denied, the fast tests

lint: ## format, clippy with warnings denied, planted violations
	@scripts/bootstrap.sh rust
	@scripts/lint.sh

bench: ## our benches, tuned for this machine's processor
	RUSTFLAGS="-C target-cpu=native" CARGO_TARGET_DIR=$(CARGO_TARGET_DIR)/native cargo bench --locked -p fluence-benches

bench-idle: ## what 24 databases cost that nobody uses: four real nodes, four minutes
	cargo build --locked -p fluence-cli
	FLUENCE_BIN=$(FLUENCE) cargo bench --locked -p fluence-benches --profile dev --bench idle

bench-sql: ## SQL beside PostgreSQL 15, whose server must be there; builds an optimised binary first: 75 minutes of CPU
	@scripts/bootstrap.sh data
	CARGO_PROFILE_RELEASE_LTO=off CARGO_TARGET_DIR=$(CARGO_TARGET_DIR)/optimised cargo build --locked --release -p fluence-cli --features sql
	FLUENCE=$(CARGO_TARGET_DIR)/optimised/release/fluence python3 tests/sql/bench.py

bench-compare: ## against other engines, in their own workspace
	cd benches/compare && RUSTFLAGS="-C target-cpu=native" CARGO_TARGET_DIR=$(CARGO_TARGET_DIR)/compare cargo bench --locked

release: ## the optimised binary with RocksDB
	@scripts/bootstrap.sh rocksdb
	dir=$$(scripts/rocksdb.sh) && ROCKSDB_LIB_DIR=$$dir ROCKSDB_STATIC=1 CARGO_PROFILE_RELEASE_LTO=thin cargo build --locked --release -p fluence-cli --features rocksdb,sql

contracts: ## the Solidity tests alone
	@scripts/bootstrap.sh node
	@scripts/test.sh contracts

artifacts: ## compile the contracts and rewrite the committed ABI and bytecode
	@scripts/bootstrap.sh node
	cd contracts && node scripts/artifacts.mjs

clean: ## remove this clone's demo output and contract caches; the shared target folder stays
	rm -rf target contracts/out contracts/cache
