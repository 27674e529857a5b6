# Needs python3 (3.11 or newer, with venv) and make; everything else is installed into .venv, with hashes.
PYTHON ?= python3
BIN := .venv/bin
INSTALL := $(BIN)/uv pip install --quiet --compile-bytecode --python $(BIN)/python
LOCKED := $(INSTALL) --require-hashes -r

help:  ## this list
	@grep -hE '^[a-z]+:.*##' Makefile | sed -E 's/:[^#]*## */\t/' | expand -t 12

demo: .venv/.base  ## the whole way on made-up products, offline; leaves demo/index.html
	$(BIN)/lookalike demo --out demo

test: .venv/.test  ## the tests; those that compare with torch are skipped and counted unless `make reference` ran
	scripts/test

check: .venv/.check  ## lint, format, types, the house rules
	scripts/check

docs: .venv/.docs  ## the documentation site, into site/
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --site-dir site

bench: .venv/.reference  ## every claim of speed, measured against what it is claimed over
	scripts/bench

reference: .venv/.reference  ## torch, transformers, faiss, scikit-learn: what parity tests and benchmarks compare with

parity: .venv/.reference  ## ViT-H/14 and SO400M/14 at full size against transformers, on random weights; 8 GB of memory
	$(BIN)/python scripts/parity

lock: .venv/.tools  ## resolve pyproject.toml anew into locks/
	scripts/lock

clean:  ## remove what this file made
	rm -rf .venv demo site

.PHONY: help demo test check docs bench reference parity lock clean

# Stamps: each is newer than the locks it was installed from, so a second `make` installs nothing.
.venv/.tools: locks/tools.txt
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -c 'import sys; assert sys.version_info >= (3, 11), "lookalike needs Python 3.11 or newer; give make PYTHON=python3.x"'
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r locks/tools.txt
	@touch $@

.venv/.base: .venv/.tools locks/base.txt pyproject.toml
	$(LOCKED) locks/base.txt
	$(INSTALL) --no-deps --no-build-isolation --editable .
	@touch $@

.venv/.test: .venv/.base locks/test.txt
	$(LOCKED) locks/test.txt
	@touch $@

.venv/.check: .venv/.test locks/check.txt
	$(LOCKED) locks/check.txt
	@touch $@

.venv/.docs: .venv/.base locks/docs.txt
	$(LOCKED) locks/docs.txt
	@touch $@

# pip, not uv: the CPU build of torch has a version of its own, which pip takes from where it is configured to look.
.venv/.reference: .venv/.test locks/reference.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check torch==2.13.0
	$(LOCKED) locks/reference.txt
	@touch $@
