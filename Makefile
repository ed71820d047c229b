# `make demo` and `make test` are all that a fresh machine needs: Debian, Python 3.11 or newer, make and git.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
OUT ?= kdkeras-demo
DATA ?= digits
SEED ?= 0

# What is the same on every backend: CI runs it on TensorFlow, with all the rest, and a part of it on JAX.
SMOKE_TESTS := tests/losses/test_contract.py tests/losses/test_values.py tests/test_every_model.py tests/test_guard.py
BACKEND_TESTS := tests/losses tests/test_indexed.py tests/test_every_model.py tests/test_guard.py

export TF_CPP_MIN_LOG_LEVEL ?= 3

.DEFAULT_GOAL := help
.PHONY: help install demo test test-all test-torch lint clean

help:
	@echo "make demo      install into $(VENV) and run the main job (DATA=digits SEED=0 OUT=kdkeras-demo)"
	@echo "make test      install into $(VENV) and run every check"
	@echo "make test-all  the same, with the slow tests"
	@echo "make test-torch the tests that are the same on every backend, on PyTorch where it is installed"
	@echo "make lint      style, types of imports and layers only"
	@echo "make install   install into $(VENV)"
	@echo "make clean     remove $(VENV) and the demo's output"

# The stamp is newer than what decides the installation: the second run starts at once.
$(STAMP): pyproject.toml setup.cfg
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "kdkeras needs Python 3.11 or newer; run make PYTHON=python3.11 ..."; exit 2; }
	@$(PYTHON) -c 'import ensurepip' 2>/dev/null || \
	  { echo "This Python cannot make virtual environments; run: apt-get install python3-venv"; exit 2; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "Installing into $(VENV) (TensorFlow is large: a minute or more) ..."
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@touch $(STAMP)

install: $(STAMP)

demo: $(STAMP)
	@$(BIN)/kdkeras demo --data $(DATA) --seed $(SEED) --out $(OUT) --overwrite

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports

# Most tests trace small graphs on one core: two processes take little more than half the time. A file stays in one.
test: lint
	$(BIN)/python -m pytest -n 2 --dist loadfile -m "not slow"
	KERAS_BACKEND=jax $(BIN)/python -m pytest -n 2 --dist loadfile -m "not slow" $(SMOKE_TESTS)

test-all: lint
	$(BIN)/python -m pytest -m slow
	$(BIN)/python -m pytest -n 2 --dist loadfile -m "not slow"
	KERAS_BACKEND=jax $(BIN)/python -m pytest $(BACKEND_TESTS)

test-torch: $(STAMP)
	@$(BIN)/python -c 'import torch' || { echo "PyTorch is not installed; run: $(BIN)/pip install torch"; exit 2; }
	KERAS_BACKEND=torch $(BIN)/python -m pytest -m "not slow" $(BACKEND_TESTS)

clean:
	rm -rf $(VENV) $(OUT) build *.egg-info
