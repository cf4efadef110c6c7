# SPDX-License-Identifier: Apache-2.0
# `make demo` shows the whole chain, and `make test` tests it. Both install their requirements.

PYTHON := .venv/bin/python
# Tests and measurements use the newest engine in Debian, the demo uses that of Debian 13.
NEWEST := ENGINE_NEWEST=1
SOURCES := buildtool tests bench
TESTS ?=
FUZZ_SECONDS ?= 600
SAMPLE ?= 300
SEED ?= 0
# Tests that start the loader. Two tests that measure memory are left out, because ASan keeps freed memory for a
# while. Leak detection is off, because it requires ptrace, which the loader gives up.
SANITIZED := $(wildcard $(patsubst %,tests/kernel/test_%*.py,attach_hooks attach_types attach_updates bad_conditions \
	loader_load loader_refuse loader_state loader_trust pins run share update)) \
	--deselect tests/kernel/test_run_supervise.py::test_reloads_leak_nothing \
	--deselect tests/kernel/test_loader_refuse.py::test_refused_files_are_not_kept

.DEFAULT_GOAL := help
.PHONY: matrix help demo quick test test-sanitized test-peers test-vm bench fuzz mutants lint loaders setup clean

help: ## show this list
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' Makefile

setup: ## install what is missing, start an engine if none answers
	@tools/setup

demo: ## build, sign, run and refuse, on a real engine and kernel
	@tools/setup --for demo
	@tools/engine run tools/demo

quick: ## lint and the tests that need only Python: no root, network, engine or compiler; about a minute
	@tools/setup --for quick
	@tools/lint ruff mypy
	@tools/test --quick

test: ## every test that a change needs; FULL=1 for all of them, TESTS=tests/unit for some
	@tools/setup --for test
	@$(NEWEST) tools/engine run tools/test $(TESTS)

test-sanitized: ## the loader's own tests once more, with all of it under ASan and UBSan
	@tools/setup --for test --no-engine
	@tools/test --sanitized $(SANITIZED)

test-peers: ## images of other tools' formats, read by these tools; the first time, compiles for minutes
	@tools/setup --for test --no-engine
	@$(PYTHON) -m pytest tests/peers

test-vm: ## every architecture on real kernels, in virtual machines
	@tools/setup --for test --no-engine
	@VM_MATRIX=all $(PYTHON) -m pytest tests/vm

bench: ## measure and print ratios
	@tools/setup --for bench
	@$(PYTHON) tools/loaders
	@$(NEWEST) tools/engine run $(PYTHON) bench/run.py

fuzz: ## look for disagreements and crashes, FUZZ_SECONDS for each of five targets
	@tools/setup --for test --no-engine
	@$(PYTHON) tests/fuzz/campaign.py $(FUZZ_SECONDS)

mutants: ## change the loader, the verifiers and signing in SAMPLE places each, and count the changes that no test notices
	@tools/setup --for test --no-engine
	@$(PYTHON) tests/mutation/mutate.py --sample $(SAMPLE) --seed $(SEED)

loaders: ## the static programs that images hold, for every architecture (wheels carry them)
	@tools/setup --for loaders
	@$(PYTHON) tools/loaders

matrix: ## write the table of docs/reference/kernels.md, in virtual machines
	@tools/setup --for test --no-engine
	@$(PYTHON) tools/matrix

lint: ## formatting, types, layering, spelling, workflows
	@tools/setup --for lint
	@tools/lint

clean: ## remove what was built; the engine and its images stay (tools/engine stop ends it)
	rm -rf build dist .coverage .pytest_cache .mypy_cache .ruff_cache .cache/demo
