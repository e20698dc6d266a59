# Each command sets everything up by itself, in .venv, the first time.
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
LOWEST := .venv-lowest/bin/python
STAMP := $(VENV)/.ready
# On all cores; an idle one takes over tests of a busy one.
PYTEST := $(BIN)/python -m pytest -n auto --dist worksteal

.PHONY: demo test test-fast test-compiled test-triton test-lowest lint docs setup install bench clean

demo: setup
	$(BIN)/swg-fast evaluate antmaze-umaze-v2 --candidates 1024 --episodes 10 --seed 0 \
	  --json demo.json --plot demo.png
	@echo "picture: demo.png   numbers: demo.json"

test: setup
	$(PYTEST)

test-fast: setup
	$(PYTEST) -m "not slow and not compiled"

test-compiled: setup
	$(PYTEST) -m compiled

test-triton: setup
	$(BIN)/python -m tests.analysis.triton_versions

test-lowest: .venv-lowest/.ready
	$(LOWEST) -m pytest -n auto --dist worksteal -m "not slow and not compiled"

lint: setup
	$(BIN)/ruff check .
	$(BIN)/mypy -p swg_fast
	$(BIN)/lint-imports --no-logo --cache-dir build/imports-cache

docs: setup
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet --strict
	@echo "open build/site/index.html"

bench: setup
	$(BIN)/python -m pytest benchmarks --benchmark-only --benchmark-columns=median,iqr,rounds \
	  --benchmark-group-by=name --benchmark-compare=benchmarks/results/suite-baseline.json \
	  --benchmark-json benchmarks/results/suite.json
	$(BIN)/python -m benchmarks.compare benchmarks/results/suite-baseline.json benchmarks/results/suite.json

# Without the tools of development, into the Python that is given; the Dockerfile runs it.
EXTRAS ?= train,video
install:
	$(PYTHON) -m pip install --no-cache-dir -c constraints.txt "torch==2.13.0"
	$(PYTHON) -m pip install --no-cache-dir -c constraints.txt ".[$(EXTRAS)]"

setup: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade "pip>=23"
	$(BIN)/python -m pip install --quiet -c constraints.txt "torch==2.13.0"
	PYTHONWARNINGS="ignore:Editable installation" \
	  $(BIN)/python -m pip install --quiet -c constraints.txt -e ".[dev]"
	touch $(STAMP)

.venv-lowest/.ready: pyproject.toml constraints-lowest.txt
	$(PYTHON) -m venv .venv-lowest
	$(LOWEST) -m pip install --quiet --upgrade "pip>=23"
	$(LOWEST) -m pip install --quiet -c constraints-lowest.txt torch
	$(LOWEST) -m pip install --quiet -c constraints-lowest.txt -e ".[all,test]"
	touch $@

clean:
	rm -rf $(VENV) .venv-lowest build *.egg-info
