# ealinformer: `make demo` and `make test` set everything up by themselves; they need Python 3.11 or 3.12.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
KERNELS := build/kernels

.PHONY: help setup demo test test-faults test-kernels fuzz lint clean

help:  ## show this list
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

setup: $(VENV)/.installed  ## make .venv with everything that training needs

demo: $(VENV)/.installed  ## train ELinFormer and STAEformer on simulated traffic, 5 minutes on 2 cores
	$(BIN)/python experiments/demo.py

test: lint  ## ruff, mypy and all tests
	$(BIN)/python -m pytest -n auto --dist loadfile --no-loadscope-reorder

test-faults: $(VENV)/.installed-dev  ## kill runs, damage files, fill disks: the full campaigns, under 15 minutes
	$(BIN)/python -m pytest tests/faults --faults full --record-faults results/faults

test-kernels: $(KERNELS)/.installed  ## the GPU kernels in Triton's interpreter, and compiled; no GPU needed
	TRITON_INTERPRET=1 PYTHONPATH=$(KERNELS) $(BIN)/python -m pytest tests/attention/kernels
	PYTHONPATH=$(KERNELS) $(BIN)/python -m pytest tests/attention/kernels/test_compile.py

fuzz: $(VENV)/.installed-dev  ## mutated files for every reader, 5 minutes
	$(BIN)/python -m tests.fuzz --minutes 5

lint: $(VENV)/.installed-dev  ## ruff and mypy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

clean:  ## remove the environment and caches; data sets and runs stay
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis build dist
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(VENV)/.installed: requirements.txt requirements-host.txt pyproject.toml
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(0 if v in ((3, 11), (3, 12)) else f"error: the pinned versions need Python 3.11 or 3.12, {sys.executable} is {v[0]}.{v[1]}: make PYTHON=python3.11")'
	@echo 'setting up $(VENV), a minute or two'
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/pip install --quiet --disable-pip-version-check -r requirements.txt
	@$(BIN)/pip install --quiet --disable-pip-version-check --no-deps -r requirements-host.txt
	@$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --editable .
	@touch $@

$(VENV)/.installed-dev: $(VENV)/.installed requirements-dev.txt
	@echo 'adding the tools for tests'
	@$(BIN)/pip install --quiet --disable-pip-version-check -r requirements-dev.txt
	@touch $@

$(KERNELS)/.installed: $(VENV)/.installed-dev requirements-kernels.txt
	@rm -rf $(KERNELS)
	@$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --target $(KERNELS) -r requirements-kernels.txt
	@touch $@
