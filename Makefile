# make demo   paints pictures and answers questions with the shipped model
# make test   runs the tests
# make test-versions   runs tests with the oldest and the newest transformers, diffusers, ... that are allowed
# make check-install   builds the wheel and runs README's quick start on it with core dependencies only
# The first two make the environment .venv from requirements.lock when it is not there; afterwards they work offline.

PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.ready
# torchao stands beside the environment: diffusers imports it wherever it is installed, and it talks while it loads.
QUANTIZE := .venv/quantize

.PHONY: demo test test-versions check-install lint format bench lock clean

demo: $(READY)
	$(BIN)/janusflow demo --out demo

# One thread for numpy: several would wait for each other beside the other tests.
test: $(READY)
	OPENBLAS_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --maxprocesses 4 $(ARGS)
	$(if $(ARGS),,PYTHONPATH=$(QUANTIZE) $(BIN)/python -m pytest tests/test_quantization.py)

# Not parts of `make test`: they take a while, and the network.
check-install:
	PYTHON=$(PYTHON) .ci/check-install

test-versions:
	PYTHON=$(PYTHON) .ci/check-versions

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(READY)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(READY)
	$(BIN)/janusflow eval tinyworld --set images=1 --option guidance=1.5 --out evaluated/tinyworld
	$(BIN)/python benchmarks/loading.py
	$(BIN)/python benchmarks/startup.py
	$(BIN)/python benchmarks/rendering.py
	$(BIN)/python benchmarks/packing.py
	$(BIN)/python benchmarks/training.py

$(READY): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "Python 3.11 or newer is needed; give it as: make PYTHON=/path/to/python3.11 ..."; exit 1; }
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --target $(QUANTIZE) torchao==0.18.0
	@touch $(READY)

# The pinned versions, from pyproject.toml's ranges as they resolve today. torch carries no local version suffix.
lock:
	rm -rf .venv.lock && $(PYTHON) -m venv .venv.lock
	.venv.lock/bin/python -m pip install --quiet torch==2.13.0
	.venv.lock/bin/python -m pip install --quiet "setuptools>=77" ".[train,eval,ray,dev]"
	.venv.lock/bin/python -m pip freeze --all --exclude janusflow --exclude pip | sed 's/+cpu//' > requirements.lock
	rm -rf .venv.lock

clean:
	rm -rf .venv demo pictures build dist .pytest_cache .ruff_cache .mypy_cache
