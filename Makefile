# Everything a developer or CI runs. Needs python3 (with venv) and make; each target sets up what it needs.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
CACHE ?= $(HOME)/.cache/shipway
export SHIPWAY_CACHE := $(CACHE)

.PHONY: setup test test-all check demo bench lock clean

setup: $(VENV)/.ready  ## a virtual environment with the locked versions, and shipway in it, editable

$(VENV)/.ready: locks/dev.txt pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r locks/dev.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	touch $@

test: setup  ## the quick tests: real Paddle, ONNX Runtime, MLflow and Node, no other service
	$(BIN)/pytest -m "not real"

test-all: setup  ## the tests that also need what tools/install-real-parts.sh installs
	tools/install-real-parts.sh
	$(BIN)/pytest -m real

check: setup  ## style, types, import rules, links between documents
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/python tools/check_types.py
	$(BIN)/lint-imports
	$(BIN)/python tools/check_links.py

demo: setup  ## the whole job on real PP-OCRv4 models, in .demo/
	$(BIN)/python demo/run.py

lock:  ## resolve the newest allowed versions again
	$(BIN)/python -m pip install --quiet uv
	$(BIN)/uv pip compile pyproject.toml --quiet --extra paddle --group dev --universal --python-version 3.10 \
	  --generate-hashes --no-header --no-annotate --no-emit-index-url --upgrade --output-file locks/dev.txt

clean:
	rm -rf $(VENV) .demo build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
