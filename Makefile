# make install | demo | test | test-extras | lint | bench | reproduce-tables | renew
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: install demo test test-slow test-extras breaks lint schema api reproduce-tables bench bench-attacks renew lock clean
.DEFAULT_GOAL := install

$(VENV)/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	touch $@

install: $(VENV)/installed  ## a virtual environment with everything in it

demo: install  ## the whole experiment on the embedded digits: Table 1, Table 2, report.html
	$(BIN)/nmutant run --config digits

test: install  ## the fast tests
	$(BIN)/python -m pytest

test-slow: install  ## the slow tests too
	$(BIN)/python -m pytest -m 'slow or not slow'

EXTRAS := attacks/test_attack_oracles.py detectors/test_detectors.py networks/test_backends.py \
  pipeline/test_workers.py pipeline/test_kills.py own_model/test_pytorch.py own_model/test_sizes.py \
  whole/test_own_page.py whole/test_light.py

test-extras: install  ## the attacks beside Foolbox and ART, JAX, PyTorch, two Ray workers, kills
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt \
	  -e '.[jax,torch,ray,oracles]'
	$(BIN)/python -m pytest -m 'slow or not slow' $(addprefix tests/,$(EXTRAS))
	$(BIN)/python -m pytest tests/whole/test_examples.py -k workers

breaks: install  ## deliberate breaks of the code, one at a time: do the fast tests notice?
	$(BIN)/python scripts/breaks.py

lint: install
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

api: install  ## docs/api.md, from the docstrings
	$(BIN)/python scripts/api_page.py

schema: install  ## the JSON schema of a config file
	$(BIN)/nmutant schema > configs/schema.json

# The published network, CIFAR10=cifar10, is one for a GPU.
CIFAR10 ?= cifar10-small

reproduce-tables: install  ## the published experiments, how long they take first; offline, set NMUTANT_DATA_DIR
	$(BIN)/nmutant estimate --config mnist
	$(BIN)/nmutant estimate --config $(CIFAR10)
	$(BIN)/nmutant run --config mnist
	$(BIN)/nmutant run --config $(CIFAR10)

bench: install  ## kappa and detection beside the bare network, memory, start-up: results/bench.json
	TF_ENABLE_ONEDNN_OPTS=1 $(BIN)/python scripts/bench.py --wider --memory --out results/bench.json

bench-attacks: install  ## our attacks beside Foolbox's and ART's
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[oracles]'
	$(BIN)/python scripts/bench_attacks.py --out results/bench-attacks.json

renew: install  ## the verdicts and digests of results/, where a rule has changed or a study was made anew
	$(BIN)/python scripts/renew.py

lock: install  ## write constraints.txt from what is installed here
	$(BIN)/python -m pip freeze --exclude-editable --disable-pip-version-check | grep -v ' @ ' \
	  | sed 's/+cpu$$//' > constraints.txt

clean:
	rm -rf $(VENV) runs build dist
