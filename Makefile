# The commands of a working day. A fresh Debian or Ubuntu machine needs Rust and a C compiler; `make setup`, which
# `build`, `demo`, `test` and `bench` run by themselves, gets the rest or says what to install.

SETUP := tests/setup/setup.sh
CACHE := $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/aperio
# Holds cmake where the system has none.
export PATH := $(PATH):$(CACHE)/bin

.PHONY: help setup build install test demo bench chaos lint schemas lock clean

help: ## This list
	@sed -n 's/^\([a-z]*\):.*## /  make \1\t/p' Makefile | expand -t 16

setup: ## Get what building and testing need, into ~/.cache/aperio (fast when it is there)
	@$(SETUP)

build: ## Build the release binary, target/release/aperio
	@$(SETUP) build
	cargo build --locked --release

install: ## Build the release binary and put it where cargo puts programs, ~/.cargo/bin
	@$(SETUP) build
	cargo install --locked --path .

test: setup ## Run all tests, those against real Kafka, catalogs and query engines too
	cargo test --locked --features failpoints

demo: ## Show it at work: an embedded broker, made-up events, a local table
	@$(SETUP) build
	cargo run --locked -- demo

bench: setup ## Measure decoding beside other decoders, and whole runs over 5 million events of each format
	cargo bench --locked --bench decode
	cargo bench --locked --bench whole_process

MINUTES ?= 60

chaos: setup ## Kill, freeze and stop four services of two tables for an hour (MINUTES=…, SEED=…, CATALOG=sql|rest), then count rows and letters
	cargo bench --locked --profile dev --features failpoints --bench chaos -- $(MINUTES) $(SEED) $(addprefix --catalog ,$(CATALOG))

lint: ## Check formatting and lints, as CI does
	cargo fmt --check
	cargo clippy --locked --all-targets --features failpoints -- -D warnings

schemas: ## After a change of the pipeline file: write schemas/pipeline.schema.json anew
	cargo run --locked --quiet -- schema > schemas/pipeline.schema.json

lock: ## After a change of a pom.xml in tests/setup: write its jars.lock anew (needs Maven)
	@$(SETUP) lock

clean: ## Remove what cargo built; what `make setup` got stays in ~/.cache/aperio
	cargo clean
