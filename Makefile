# `make help` lists the commands. The first run of one fetches and builds what it needs, which takes minutes; later runs do
# only what changed. Tools go to .tools, Python packages to .venv, everything else that is built to target.

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DELETE_ON_ERROR:
.NOTPARALLEL:
MAKEFLAGS += --no-builtin-rules

# The versions that this is built and tested with; Rust's is in rust-toolchain.toml.
CARGO_COMPONENT := 0.21.1
CARGO_DENY := 0.20.2
WAC := 0.12.0
WASM_TOOLS := 1.263.0

STAMPS := target/stamps
COMPONENT := host-python/src/moka_wasm/moka_cache.wasm
NATIVE := host-python/src/moka_wasm/_native.abi3.so
GUEST := Cargo.toml Cargo.lock build.rs rust-toolchain.toml $(shell find src wit -type f ! -name bindings.rs)
HINTS := $(shell find scripts/branch-hints -type f)
COMPOSED := target/moka_cache_plugin_with_cache.wasm
PACKAGE := host-python/pyproject.toml host-python/setup.py $(shell find host-python/src -name '*.py*')
RELIABILITY := host-python/tests/reliability
EXTENSION := Cargo.toml Cargo.lock rust-toolchain.toml $(shell find host-python/native -type f)

# Where the tests of the other hosts, and plugin-rust/compose.sh, find the component.
export MOKA_CACHE_WASM := $(CURDIR)/$(COMPONENT)

.PHONY: help run test lint fmt bench stress fuzz soak supply profile wheel component native clean
.PHONY: test-fuzz test-wit test-rust test-rust-in-wasm test-imports test-profiles test-python test-soak test-wheel test-host-rust test-node test-readme test-reproducible

help: ## this list
	@sed -nE 's/^([a-z]+):.*## (.*)/make \1\t\2/p' Makefile | expand -t 16

run: component native .venv/run ## build everything and run the example program
	.venv/bin/python host-python/examples/quickstart.py

# The cheap and general checks come first, those that need what others build later.
test: lint test-wit test-rust test-rust-in-wasm component test-imports test-profiles test-fuzz test-python test-soak test-wheel test-host-rust test-node test-readme test-reproducible ## every test and every check, of every language
	@echo "make test: all passed"

lint: .tools/rust.env .venv/run .venv/test .venv/lint ## formatting, lints and types, of every language
	scripts/lint

fmt: .tools/rust.env .venv/lint ## format every language
	scripts/rust cargo fmt --all
	cd fuzz && ../scripts/rust cargo fmt
	.venv/bin/ruff format --config host-python/pyproject.toml host-python scripts $(wildcard benches)
	.venv/bin/ruff check --fix --config host-python/pyproject.toml host-python scripts $(wildcard benches)

bench: component native .venv/run .venv/bench ## measure, with other caches in the same run
	.venv/bin/python benches/run.py

# `make stress OPERATIONS=1000000000` for a billion.
stress: component native .venv/run ## ten million operations of many threads, and memory that ends anywhere
	.venv/bin/python $(RELIABILITY)/never_a_wrong_value.py --operations $(or $(OPERATIONS),10000000)
	.venv/bin/python $(RELIABILITY)/memory_pressure.py

# `make soak MINUTES=5` at night.
soak: component native .venv/run ## an hour of mixed load: memory stays flat, nothing stays behind
	.venv/bin/python $(RELIABILITY)/soak.py --minutes $(or $(MINUTES),60)

supply: .tools/cargo-deny-$(CARGO_DENY) .venv/run ## licences and known vulnerabilities of what we build on
	scripts/check-supply

# Over ten million executions of all targets.
fuzz: component native .tools/rust.env .tools/wasm-tools-$(WASM_TOOLS) .venv/run .venv/fuzz ## fuzz the cache, both faces and the codecs
	scripts/fuzz $(or $(RUNS),2000000) $(or $(RUNS),8000000) $(or $(RUNS),500000) $(or $(RUNS),5000) \
	  $(or $(RUNS),500000)

profile: component native .venv/run ## count anew what runs often, by which the component and the extension are built
	scripts/profile-guest
	scripts/hint-branches
	scripts/profile-native
	scripts/build-native

wheel: $(STAMPS)/wheel ## dist/moka_wasm-*.whl, which carry the component: one pure, one with the native extension

component: $(COMPONENT)

native: $(NATIVE)

clean: ## remove what was built (.tools, which takes longest, stays)
	rm -rf target .venv dist host-python/build host-python/src/*.egg-info $(COMPONENT) $(NATIVE) src/bindings.rs

# The parts of make test.

test-wit: .tools/wasm-tools-$(WASM_TOOLS)
	scripts/check-wit

test-rust: .tools/rust.env
	scripts/rust cargo test --locked --package moka-cache --no-default-features
	scripts/rust cargo test --locked --package branch-hints

test-rust-in-wasm: .tools/rust.env .venv/run
	CARGO_TARGET_WASM32_WASIP1_RUNNER="$(CURDIR)/.venv/bin/python $(CURDIR)/scripts/run_wasi_test.py" \
	  scripts/rust --wasm cargo test --locked --package moka-cache --no-default-features --target wasm32-wasip1

test-imports: $(COMPONENT) .tools/wasm-tools-$(WASM_TOOLS)
	scripts/check-imports

test-profiles: $(COMPONENT) $(NATIVE)
	scripts/check-profiles

# The codecs are fuzzed by the Python tests.
test-fuzz: component native .tools/rust.env .tools/wasm-tools-$(WASM_TOOLS) .venv/run .venv/fuzz
	scripts/fuzz 50000 50000 10000 100 15000

test-python: $(COMPONENT) $(NATIVE) .venv/run .venv/test
	scripts/test-python

test-soak: component native .venv/run
	.venv/bin/python $(RELIABILITY)/soak.py --minutes 1

test-wheel: $(STAMPS)/wheel $(NATIVE)
	scripts/check-wheel
	scripts/test-python-versions

test-host-rust: $(COMPONENT) $(COMPOSED)
	cd host-rust && ../scripts/rust cargo test --locked --package moka-cache-host
	cd host-rust && ../scripts/rust cargo run --locked --quiet --example embed

test-node: $(COMPONENT) $(STAMPS)/node
	cd host-node && npm test && node embed.mjs

test-readme: $(COMPONENT) .venv/run
	.venv/bin/python scripts/check_readme.py README.md

test-reproducible: $(STAMPS)/reproducible

# What the commands need.

$(COMPONENT): $(GUEST) $(HINTS) scripts/build-component scripts/compiler-flags | .tools/cargo-component-$(CARGO_COMPONENT)
	scripts/build-component
	touch $@

$(NATIVE): $(EXTENSION) scripts/build-native scripts/compiler-flags | .tools/rust.env
	scripts/build-native

$(COMPOSED): $(COMPONENT) plugin-rust/Cargo.toml plugin-rust/compose.sh plugin-rust/src/lib.rs $(wildcard plugin-rust/wit/*.wit) .tools/wac-$(WAC)
	scripts/rust --wasm plugin-rust/compose.sh
	touch $@

$(STAMPS)/reproducible: $(COMPONENT) scripts/check-reproducible
	scripts/check-reproducible
	mkdir -p $(@D) && touch $@

$(STAMPS)/wheel: $(COMPONENT) $(PACKAGE) $(EXTENSION) | .venv/run
	scripts/build-wheel
	mkdir -p $(@D) && touch $@

$(STAMPS)/node: host-node/package.json host-node/package-lock.json
	# Not `npm ci`: it refuses a lock that cannot name optional packages for other platforms which were never published.
	# Versions and hashes are those of the lock all the same.
	cd host-node && npm install --no-save --no-audit --no-fund
	mkdir -p $(@D) && touch $@

.tools/rust.env: rust-toolchain.toml scripts/find-rust scripts/wasi-target-from-debian
	scripts/find-rust

.tools/cargo-component-$(CARGO_COMPONENT): | .tools/rust.env
	scripts/install-tool cargo-component $(CARGO_COMPONENT) cargo-component
	touch $@

.tools/cargo-deny-$(CARGO_DENY): | .tools/rust.env
	scripts/install-tool cargo-deny $(CARGO_DENY) cargo-deny
	touch $@

.tools/wac-$(WAC): | .tools/rust.env
	scripts/install-tool wac-cli $(WAC) wac --no-default-features
	touch $@

.tools/wasm-tools-$(WASM_TOOLS): | .tools/rust.env
	scripts/install-tool wasm-tools $(WASM_TOOLS) wasm-tools --no-default-features --features component,print,validate
	touch $@

.venv/bin/python:
	"$$(scripts/find-python)" -m venv .venv

# The package itself is installed in place: changes of its sources need no new installation.
.venv/run: host-python/requirements-run.txt host-python/pyproject.toml host-python/setup.py | .venv/bin/python
	.venv/bin/python -m pip install --quiet --require-hashes -r $<
	.venv/bin/python -m pip install --quiet --no-deps --no-build-isolation --editable host-python
	touch $@

.venv/test .venv/lint .venv/bench .venv/fuzz: .venv/%: host-python/requirements-%.txt | .venv/bin/python
	.venv/bin/python -m pip install --quiet --require-hashes -r $<
	touch $@
