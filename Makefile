# The one list of commands. `make` shows it; long recipes are the scripts in dev/.

REPORT_CACHE ?= $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/report-operator
CARGO_TARGET_DIR ?= $(REPORT_CACHE)/target
export REPORT_CACHE CARGO_TARGET_DIR

.DEFAULT_GOAL := help
CHAOS_ROUNDS ?= 300

.PHONY: help setup build release gen check test test-worker test-e2e chaos demo demo-down images bench-load bench-tpch clean

help: ## this list
	@awk -F ':.*## ' '/^[a-z][a-z0-9-]*:.*## / {printf "make %-12s %s\n", $$1, $$2}' Makefile

setup: ## install what is missing on this machine (root, Debian)
	@dev/setup

build: ## build everything, optimised dependencies, quick for our own code; target/ then leads to what was built
	cargo build --workspace
	@[ -e target ] || ln -s "$(CARGO_TARGET_DIR)" target

gen: ## write the CRDs, the chart's copy and the reference documentation
	@dev/ci gen

check: ## what to run before a commit: format, lints, generated files, unit tests, dependency rules
	@dev/ci check

test: ## everything, on a real cluster with real services (root); what CI runs
	@dev/ci test

test-worker: ## the worker's tests against real PostgreSQL, MariaDB, S3 and HTTP
	@dev/ci test-worker

test-e2e: ## the operator's tests on a real cluster (root)
	@dev/ci test-e2e

chaos: ## CHAOS_ROUNDS=300 rounds of failures everywhere, some 40 minutes; CHAOS_SEED=N repeats them, CHAOS_ROUND=N one
	@CHAOS_ROUNDS=$(CHAOS_ROUNDS) TEST_LIMIT=8h TEST_ARGS="-- --nocapture chaos::" dev/ci test-worker

demo: ## a cluster with the examples running on a schedule, and a look at what they wrote
	@dev/demo

demo-down: ## remove the demo: cluster, services and their data
	@dev/demo down

images: build ## image archives of the operator and the worker, without Docker
	@dev/deploy images

bench-load: release ## loads side by side with psql, DuckDB, dlt and pgloader: benches/README.md
	@dev/setup peers
	@benches/bench-load $(BENCH_ARGS)

bench-tpch: release ## TPC-H's 22 queries as models at scale factors 1 and 10 under memory limits
	@dev/setup peers
	@benches/bench-tpch $(BENCH_ARGS)

release: ## build the worker as it is released; takes long
	cargo build --release --package etl-worker

clean: ## remove what was built here; tools, Kubernetes and downloads stay
	cargo clean
	rm -rf out "$(REPORT_CACHE)/images"
