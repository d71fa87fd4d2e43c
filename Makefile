# Each of demo, test and bench does all the set-up it needs; the second time that is a look at some stamps.

PYTHON ?= python3
OUT ?= out
SETUP := $(PYTHON) dev/setup/prepare.py
# Only there where a sourced ROS 2 lacked message packages.
SOURCE := if [ -f build/interfaces/install/setup.sh ]; then . build/interfaces/install/setup.sh; fi;

.DEFAULT_GOAL := help
SOURCES := aecf_ros test benchmarks dev launch setup.py

.PHONY: help demo test lint bench bench-fusion bench-node setup-demo setup-train setup-test setup-bench clean

help:
	@echo 'make demo    the fusion node on a recording whose camera and microphone fail on schedule; report in $(OUT)/demo'
	@echo 'make test    the linter, the type checker and the whole test suite'
	@echo 'make lint    the linter and the type checker alone'
	@echo 'make bench   the benchmarks; tables here, numbers in $(OUT)/bench'
	@echo 'make clean   remove what the above left in this folder'
	@echo 'Set-up alone: make setup-demo, setup-train (for .venv/bin/aecf train), setup-test or setup-bench. Another interpreter: make PYTHON=python3.12 demo'

demo: setup-demo
	@$(SOURCE) .venv/bin/aecf demo --out $(OUT)/demo

lint: setup-test
	@.venv/bin/ruff check $(SOURCES)
	@.venv/bin/ruff format --check $(SOURCES)
	@.venv/bin/mypy

test: lint
	@$(SOURCE) .venv/bin/python -m pytest test -q

bench: setup-bench
	@$(SOURCE) .venv/bin/python -m benchmarks

bench-fusion: setup-bench
	@$(SOURCE) .venv/bin/python -m benchmarks fusion

bench-node: setup-bench
	@$(SOURCE) .venv/bin/python -m benchmarks node

setup-demo:
	@$(SETUP) demo

setup-train:
	@$(SETUP) train

setup-test:
	@$(SETUP) test

setup-bench:
	@$(SETUP) bench

clean:
	rm -rf .venv build install log out *.egg-info .pytest_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
