# make run      goes from nothing to a searchable index of the demo corpus; the engines keep running, and a keeper restarts what fails
# make stop     stops what make run started
# make test     runs all tests, on engines of their own
# make docs     builds the documentation into site/, and fails if a link leads nowhere
# make test-containers  starts docker-compose.yml for real, and kills its engines one by one; needs Docker
# make bench    compares each stage with its alternatives; needs an otherwise idle machine
# make test-fast, lint, types, lock, clean: for developers
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.DEFAULT_GOAL := help
.PHONY: help install run stop test test-fast test-containers lint types docs bench clean lock

help:
	@sed -n 's/^# make/make/p' Makefile

# Uses uv if it is installed, and pip otherwise. Both install exactly what is in the lock, verified by hash; the lock is
# complete, hence --no-deps.
$(VENV)/installed: requirements.lock pyproject.toml
	@echo "installing $$(grep -c '^[a-z0-9]' requirements.lock) packages into $(VENV)"
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "tinytags: error: $(PYTHON) is older than Python 3.11; name another: make PYTHON=python3.12 ..." >&2; exit 2; }
	@if command -v uv >/dev/null; then \
		uv venv -q --seed --allow-existing --python "$(PYTHON)" $(VENV) && \
		uv pip install -q --python $(BIN)/python --no-deps --require-hashes -r requirements.lock && \
		uv pip install -q --python $(BIN)/python --no-deps --no-build-isolation -e . ; \
	else \
		$(PYTHON) -m venv $(VENV) && \
		$(BIN)/python -m pip install -q --disable-pip-version-check --no-deps --require-hashes -r requirements.lock && \
		$(BIN)/python -m pip install -q --disable-pip-version-check --no-deps --no-build-isolation -e . ; \
	fi
	@touch $@

install: $(VENV)/installed

run: install
	@$(BIN)/tinytags up --keep
	@$(BIN)/tinytags run

stop:
	@if [ -x $(BIN)/tinytags ]; then $(BIN)/tinytags down; else echo "nothing was ever started here"; fi

# In two processes, each with engines of its own: tests/conftest.py says which test runs in which.
test: install
	@$(BIN)/python -m pytest -n 2

# Needs no engines.
test-fast: install
	@$(BIN)/python -m pytest -n 2 -m "not integration"

# CONTAINERS_PROFILE=cluster: with two of what may be killed. Not a part of `make test`: it needs Docker, and half an hour.
test-containers: install
	@$(BIN)/python -m pytest -s tests/containers/whole_way.py

lint: install
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/lint-imports

types: install
	@$(BIN)/mypy

docs: install
	@NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet --site-dir site
	@echo "open site/index.html"

bench: install
	@for part in ingest train tags embed score index search similar verify corrections review loop precision review_page orchestration; do $(BIN)/python benchmarks/$$part.py || exit 1; done

lock:
	uv pip compile -q --universal --generate-hashes --no-emit-index-url --no-header --group dev pyproject.toml -o requirements.lock

# Leaves the store, reviews and passwords, which are in .tinytags.
clean: stop
	rm -rf $(VENV) site .mypy_cache .ruff_cache .pytest_cache .hypothesis
