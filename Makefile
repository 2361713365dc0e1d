PYTHON ?= python3
BIN := .venv/bin
INSTALLED := .venv/.installed
PIP_INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check
LOCK := uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --custom-compile-command "make lock"

.PHONY: setup run demo test check bench soak lock

setup: $(INSTALLED)
	@:

$(INSTALLED): pyproject.toml requirements-dev.lock
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Layover needs Python 3.11 or later; name it: make PYTHON=python3.12 ...")'
	@echo "Setting up .venv with what requirements-dev.lock pins"
	@$(BIN)/python -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv --clear .venv
	@$(PIP_INSTALL) --require-hashes --requirement requirements-dev.lock
	@$(PIP_INSTALL) --no-deps --no-build-isolation --editable .
	@touch $@

run: setup
	@$(BIN)/layover serve

demo: setup
	@$(BIN)/layover demo

test: setup
	@$(BIN)/pytest

check: setup
	$(BIN)/ruff format --check
	$(BIN)/ruff check
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: setup
	@$(BIN)/python -m tests.benchmarks

# SOAK="--minutes 1" for a short one.
soak: setup
	@$(BIN)/python -m tests.soak $(SOAK)

# Needs uv on PATH. Keeps every pin that still fits; remove a lock file first to take new versions.
lock:
	$(LOCK) pyproject.toml --output-file requirements.lock
	$(LOCK) pyproject.toml --extra ecr --extra google --extra azure --constraint requirements.lock --output-file requirements-cloud.lock
	$(LOCK) pyproject.toml --group dev --constraint requirements.lock --output-file requirements-dev.lock
	$(LOCK) --group pyproject.toml:build --constraint requirements-dev.lock --output-file requirements-build.lock
