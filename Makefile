# Everything that is done with this repository, day to day and in CI.

TARGET := $(or $(CARGO_TARGET_DIR),target)
PREFIX ?= /usr/local
SHARE = $(DESTDIR)$(PREFIX)/share
# CI builds what was committed, and nothing newer.
LOCKED := $(if $(CI),--locked)

# Always the whole workspace, always the dev profile, which is optimised: then
# cargo resolves the same features for `run`, `test` and `up` and builds
# everything once.
BUILD := cargo build $(LOCKED) --workspace

.DEFAULT_GOAL := help
.PHONY: help system run test torture mutants fuzz bench up down stop build install fmt lint clean

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-8s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

# Costs nothing where everything is there.
system: ## Install what the build needs from the system, or say what to install
	@.ci/dependencies

run: build ## Stream real events end to end through real services and show the result
	$(TARGET)/debug/run $(ARGS)

# Most tests wait for services most of the time.
test: export RUST_TEST_THREADS ?= 4
test: build ## Run every test, those on real services included
	.ci/with-stack cargo test $(LOCKED) --workspace

torture: build ## Kill, pause and cut off everything while events are written, and prove that none is lost or doubled (DURATION=, SEED=)
	$(TARGET)/debug/torture $(ARGS)

# The programs of these runs lie apart: nothing else may meet them.
mutants: DURATION ?= 2m
mutants: export DURATION := $(DURATION)
mutants: system ## Take one rule of the protocols after the other away, and see whether the campaign notices (NAMES=)
	$(BUILD) --bin outpour-relay --bin outpour-consumer --features outpour-schemas/mutants
	install -d $(TARGET)/mutants
	install $(TARGET)/debug/outpour-relay $(TARGET)/debug/outpour-consumer $(TARGET)/mutants
	$(BUILD) --bins
	$(TARGET)/debug/torture --mutants $(TARGET)/mutants $(NAMES)

fuzz: system ## Feed hostile input to the parsers for a minute each (FUZZ_SECONDS=)
	.ci/fuzz

bench: system ## Measure speed and memory beside their physical limits (SUITE=, CASE=, DATASET=, ROWS=, PER_TRANSACTION=, ROUNDS=)
	cargo build $(LOCKED) --release --workspace --bin bench --bin outpour-relay --bin outpour-consumer
	$(TARGET)/release/bench $(ARGS)

up: system ## Start PostgreSQL, Kafka and ClickHouse; their addresses go to target/stack/env
	$(BUILD) --bin stack
	$(TARGET)/debug/stack up

down: system ## Stop them; their data stays
	$(BUILD) --bin stack
	$(TARGET)/debug/stack down

stop: down ## The same

build: system ## Build every program
	$(BUILD) --bins

install: system ## Build for release and install both programs into PREFIX (/usr/local), with completions and manual pages
	cargo build --locked --release --bins --features outpour-producer/relay -p outpour-producer -p outpour-consumer
	install -d $(DESTDIR)$(PREFIX)/bin
	install -m 755 $(TARGET)/release/outpour-relay $(TARGET)/release/outpour-consumer $(DESTDIR)$(PREFIX)/bin
	install -d $(addprefix $(SHARE)/,bash-completion/completions zsh/site-functions fish/vendor_completions.d man/man1)
	set -e; for program in outpour-relay outpour-consumer; do \
		run=$(TARGET)/release/$$program; \
		$$run completions bash > $(SHARE)/bash-completion/completions/$$program; \
		$$run completions zsh > $(SHARE)/zsh/site-functions/_$$program; \
		$$run completions fish > $(SHARE)/fish/vendor_completions.d/$$program.fish; \
		$$run man --out $(SHARE)/man/man1; \
	done

fmt: ## Format the code
	cargo fmt --all

lint: ## Check formatting, clippy, the documentation and the dependencies
	@.ci/dependencies lint
	cargo fmt --all --check
	cargo clippy $(LOCKED) --workspace --all-targets -- -D warnings
	RUSTDOCFLAGS="-D warnings" cargo doc $(LOCKED) --workspace --no-deps --document-private-items
	.ci/deny

clean: ## Stop the services and remove everything that was built, their data included
	@if [ -x $(TARGET)/debug/stack ]; then $(TARGET)/debug/stack down; fi
	cargo clean
