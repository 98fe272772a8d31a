# make demo            generates pictures and answers questions with the shipped model
# make test            runs the tests
# make lint            checks style and types
# make docs            builds the documentation into site/; fails on a broken link or reference
# make serve-docs      shows the documentation on http://127.0.0.1:8000 and rebuilds it when a file changes
# make test-versions   runs tests with the oldest and the newest transformers, diffusers, ... that are allowed
# make check-install   builds wheel and sdist, runs README's quick start on the wheel with core dependencies only, and
#                      installs each extra but lmms; EXTRAS="eval serve" are only these
# Targets create the environment .venv from requirements.lock if it does not exist; afterwards all but the last two
# work offline.

PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.ready
# torchao is installed next to the environment: diffusers imports it wherever it is installed, and it talks while it loads.
QUANTIZE := .venv/quantize
PIP := python -m pip install --quiet --disable-pip-version-check
HASHED := uv pip compile --quiet --no-deps --generate-hashes --no-header --no-annotate

.PHONY: demo test test-versions check-install lint format docs serve-docs bench lock clean

demo: $(READY)
	$(BIN)/janusflow demo --out demo

# One thread for numpy: several would wait for each other while other tests run.
test: $(READY)
	OPENBLAS_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --maxprocesses 4 --dist worksteal $(ARGS)

# Not parts of `make test`: they take a while, and the network.
check-install:
	PYTHON=$(PYTHON) .ci/check-install $(EXTRAS)

test-versions:
	PYTHON=$(PYTHON) .ci/check-versions

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(READY)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# The variable silences an advertisement for another tool.
docs: $(READY)
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet
	@echo site/index.html

serve-docs: $(READY)
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs serve

bench: $(READY)
	$(BIN)/janusflow eval tinyworld --set images=1 --option guidance=1.5 --out evaluated/tinyworld
	$(BIN)/python benchmarks/loading.py
	$(BIN)/python benchmarks/startup.py
	$(BIN)/python benchmarks/rendering.py
	$(BIN)/python benchmarks/packing.py
	$(BIN)/python benchmarks/training.py

# torch has a file of its own, without hashes: its build differs by platform.
$(READY): requirements.lock requirements-torch.lock requirements-quantize.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "Python 3.11 or newer is needed; give it as: make PYTHON=/path/to/python3.11 ..."; exit 1; }
	$(PYTHON) -m venv .venv
	$(BIN)/$(PIP) --no-deps --require-hashes -r requirements.lock
	$(BIN)/$(PIP) -r requirements-torch.lock
	$(BIN)/$(PIP) --no-deps --no-build-isolation -e .
	$(BIN)/$(PIP) --no-deps --require-hashes --target $(QUANTIZE) -r requirements-quantize.lock
	@touch $(READY)

# The pinned versions: pyproject.toml's ranges as they resolve today, with the hashes of every file of each version.
lock:
	rm -rf .venv.lock && $(PYTHON) -m venv .venv.lock
	.venv.lock/bin/$(PIP) -r requirements-torch.lock
	.venv.lock/bin/$(PIP) "setuptools>=77" ".[train,eval,pictograms,serve,ray,onnx,docs,dev]"
	.venv.lock/bin/python -m pip freeze --all --exclude janusflow --exclude pip --exclude torch > .venv.lock/pinned
	.venv.lock/bin/$(PIP) uv
	.venv.lock/bin/$(HASHED) .venv.lock/pinned -o requirements.lock
	grep -o '^torchao==[^ ]*' requirements-quantize.lock > .venv.lock/quantize
	.venv.lock/bin/$(HASHED) .venv.lock/quantize -o requirements-quantize.lock
	rm -rf .venv.lock

clean:
	rm -rf .venv demo build dist site .pytest_cache .ruff_cache .mypy_cache
