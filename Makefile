# `make test` is what CI runs. Everything it makes or installs is in target/, except system packages,
# which it installs only where they are missing and we are root.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := test
.PHONY: test tools tag rust-tools services lint fmt clippy doc unit audit bench bench-compile soak fuzz demo

VENV := target/venv
SERVICES := prometheus redis-server openssl faketime chromium curl slowhttptest
# What sites run in browsers, as it is published.
NPM := target/npm
# The clients of others, with what they depend on.
CLIENTS := target/clients
# What builds the tag that the server serves, and where it is built to.
TAG_TOOLS := target/tag
TAG_FILE := dashboards/tag/t.js
TOOLS := target/tools
DENY := $(TOOLS)/bin/cargo-deny
# All criterion benches.
BENCHES := $(filter-out compile,$(basename $(notdir $(wildcard loadtest/benches/*.rs))))
COMPILE_VENV := target/venv-compile
EVENTS ?= 20000000
COMPILE ?=
ROUNDS ?= 200
MUTATIONS ?= 1000000
# Seconds for each target of loadtest/fuzz.
SECONDS_EACH ?= 60
FUZZ := target/fuzz
FUZZ_TARGETS = $(basename $(notdir $(wildcard loadtest/fuzz/targets/*.rs)))
CASES ?= 20000

# $(call stage,name,command): runs the command and tells how long it took.
define stage
@echo "== $(1)"; start=$$SECONDS; $(2); echo "== $(1): $$((SECONDS - start)) s"
endef

test: tools lint unit
	@echo "== all passed"

tools:
	$(call stage,tools,$(MAKE) --no-print-directory $(VENV)/installed rust-tools services $(NPM)/installed $(CLIENTS)/installed $(TAG_TOOLS)/installed)

rust-tools:
	@command -v cargo >/dev/null || { echo "cargo is missing: install Rust (rustup), then run make again" >&2; exit 1; }
	@cargo fmt --version >/dev/null 2>&1 || rustup component add rustfmt
	@cargo clippy --version >/dev/null 2>&1 || rustup component add clippy

$(VENV)/installed: loadtest/requirements.txt
	@command -v python3 >/dev/null && python3 -c 'import ensurepip, venv' 2>/dev/null || { \
	  if [ "$$(id -u)" = 0 ]; then apt-get update -qq && apt-get install -y -qq python3 python3-venv; \
	  else echo "python3 with venv is missing: install it, then run make again" >&2; exit 1; fi; }
	@python3 -m venv $(VENV)
	@$(VENV)/bin/pip install --quiet --disable-pip-version-check -r loadtest/requirements.txt
	@touch $@

# Each is unpacked as it is, without what it would depend on where it is built.
$(NPM)/installed: loadtest/npm-packages.txt
	@command -v npm >/dev/null || { \
	  if [ "$$(id -u)" = 0 ]; then apt-get update -qq && apt-get install -y -qq --no-install-recommends npm; \
	  else echo "npm is missing: install it, then run make again" >&2; exit 1; fi; }
	@rm -rf $(NPM) && mkdir -p $(NPM)
	@while read -r package; do \
	  folder=$(NPM)/$${package%@*}; mkdir -p $$folder; \
	  npm pack --silent --pack-destination $(NPM) $$package >/dev/null; \
	  tar -xzf $(NPM)/*.tgz -C $$folder --strip-components 1; rm $(NPM)/*.tgz; \
	done < $<
	@touch $@

$(CLIENTS)/installed: loadtest/clients/package.json loadtest/clients/package-lock.json | $(NPM)/installed
	@rm -rf $(CLIENTS) && mkdir -p $(CLIENTS) && cp loadtest/clients/package*.json $(CLIENTS)
	@npm ci --prefix $(CLIENTS) --ignore-scripts --no-audit --no-fund --silent
	@touch $@

# The versions that the lock file pins; nothing of theirs runs while they are installed.
$(TAG_TOOLS)/installed: dashboards/tag/package.json dashboards/tag/package-lock.json | $(NPM)/installed
	@rm -rf $(TAG_TOOLS) && mkdir -p $(TAG_TOOLS)
	@cp $^ $(TAG_TOOLS)
	@cd $(TAG_TOOLS) && npm ci --silent --ignore-scripts --no-audit --no-fund
	@touch $@

# The tag is committed as it is built; a test builds it anew and compares.
tag: $(TAG_TOOLS)/installed
	@$(TAG_TOOLS)/node_modules/.bin/tsc --project dashboards/tag
	@$(TAG_TOOLS)/node_modules/.bin/esbuild dashboards/tag/tag.ts --log-level=warning --bundle --minify --target=es2017 --format=iife --outfile=$(TAG_FILE)

# Programs that the tests start for themselves. Debian would start them as services too: not here.
services:
	@missing=; for program in $(SERVICES); do command -v $$program >/dev/null || missing="$$missing $$program"; done; \
	[ -x /usr/sbin/sshd ] || missing="$$missing openssh-server"; \
	command -v sftp >/dev/null || missing="$$missing openssh-client"; \
	if [ -n "$$missing" ]; then \
	  if [ "$$(id -u)" = 0 ]; then apt-get update -qq && RUNLEVEL=1 apt-get install -y -qq --no-install-recommends $$missing; \
	  else echo "missing:$$missing; install with: sudo apt-get install$$missing" >&2; exit 1; fi; fi

fmt:
	$(call stage,fmt,cargo fmt --all --check)

lint: fmt clippy doc

clippy:
	$(call stage,clippy,cargo clippy --workspace --all-targets -- -D warnings)

doc:
	$(call stage,doc,RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps --document-private-items)

unit:
	$(call stage,unit,cargo test --workspace)

# Licences, bans and sources need no network. Known holes need the advisory database: where it is
# out of reach the audit says so instead of failing.
audit: $(DENY)
	$(call stage,audit,$(DENY) check bans licenses sources)
	@if $(DENY) fetch db >/dev/null 2>&1; then $(DENY) check advisories; \
	 else echo "advisories left out: their database is out of reach"; fi

$(DENY):
	cargo install --locked --quiet --root $(TOOLS) cargo-deny

bench:
	cargo build --release --workspace
	target/release/loadtest bench
	cargo bench --package loadtest $(BENCHES:%=--bench %) -- --warm-up-time 0.5 --measurement-time 2

# The rule compiler beside ClickHouse, DuckDB and CRoaring: the same events, the same rules, answers compared.
# `make bench-compile EVENTS=100000000` takes more; `COMPILE=--json` prints JSON.
bench-compile: $(COMPILE_VENV)/installed
	cargo bench --package loadtest --bench compile -- --events $(EVENTS) --python $(CURDIR)/$(COMPILE_VENV)/bin/python $(COMPILE)

$(COMPILE_VENV)/installed: loadtest/benches/compile/requirements.txt
	@command -v python3 >/dev/null && python3 -c 'import ensurepip, venv' 2>/dev/null || { \
	  if [ "$$(id -u)" = 0 ]; then apt-get update -qq && apt-get install -y -qq python3 python3-venv; \
	  else echo "python3 with venv is missing: install it, then run make again" >&2; exit 1; fi; }
	@python3 -m venv $(COMPILE_VENV)
	@$(COMPILE_VENV)/bin/pip install --quiet --disable-pip-version-check -r loadtest/benches/compile/requirements.txt
	@touch $@

# The long runs: ROUNDS kills under load, CASES cases of every property test, MUTATIONS requests that are wrong somehow, and all
# targets of fuzzing.
soak: fuzz
	cargo build --release --workspace
	target/release/loadtest kill --rounds $(ROUNDS)
	PROPTEST_CASES=$(CASES) MUTATIONS=$(MUTATIONS) cargo test --release --workspace

# Each target for SECONDS_EACH, on what is kept in loadtest/fuzz/corpus; what is new is left in target/fuzz. What does harm is
# left there, too, with its name, and fails. The dependencies are those of `make test`.
fuzz:
	RUSTC_WRAPPER=$(CURDIR)/loadtest/fuzz/instrument.sh cargo build --manifest-path loadtest/fuzz/Cargo.toml --target-dir target
	@for target in $(FUZZ_TARGETS); do \
	  mkdir -p $(FUZZ)/new/$$target $(FUZZ)/harm; echo "== fuzz $$target"; \
	  target/debug/$$target -max_total_time=$(SECONDS_EACH) -rss_limit_mb=1024 -timeout=5 -max_len=65536 -print_final_stats=1 \
	    -artifact_prefix=$(FUZZ)/harm/$$target- $(FUZZ)/new/$$target loadtest/fuzz/corpus/$$target 2>&1 | tail -n 12 || true; \
	done
	@[ -z "$$(ls -A $(FUZZ)/harm)" ] || { ls $(FUZZ)/harm; exit 1; }

demo:
	cargo run --release -- demo
