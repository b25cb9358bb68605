# Everything from Python 3.11+ and make alone: the environment lives in .venv, uv inside it.
PYTHON ?= $(shell for p in python3.13 python3.12 python3.11 python3; do command -v $$p >/dev/null 2>&1 && $$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)
BIN := .venv/bin
READY := .venv/ready
# Where this is set, each of a test's many processes compiles all that it imports: 20 seconds each.
export PYTHONDONTWRITEBYTECODE :=

.PHONY: setup demo demo-text demo-retrieval test test-slow lint types docs benchmark clean

setup: $(READY)

$(READY): pyproject.toml constraints.txt
	@test -n "$(PYTHON)" || { echo "limbeck needs Python 3.11 or newer on the PATH (or: make PYTHON=/path/to/python)"; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@test -x $(BIN)/uv || $(BIN)/python -m pip install --quiet --disable-pip-version-check uv
	$(BIN)/uv pip install --quiet --python $(BIN)/python --constraint constraints.txt --editable '.[dev]'
	@touch $(READY)

demo: $(READY)
	$(BIN)/limbeck demo

demo-text: $(READY)
	$(BIN)/limbeck demo --about text

demo-retrieval: $(READY)
	$(BIN)/limbeck demo --about search

test: $(READY)
	$(BIN)/python -m pytest -n 2

test-slow: $(READY)
	$(BIN)/python -m pytest -m slow

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(READY)
	$(BIN)/mypy

docs: $(READY)
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet --site-dir site

benchmark: $(READY)
	$(BIN)/python benchmarks/step.py

clean:
	rm -rf .venv site build dist
