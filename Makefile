# The main commands are `make book` and `make test`. Each works on a fresh machine with python3 and make.
# Finished steps are not repeated: the environment is keyed on pyproject.toml and constraints.txt, the open data on their recipe,
# the executed notebooks on everything that they depend on.

VENV ?= .venv
RUN := $(VENV)/bin
KEY := $(shell cat pyproject.toml constraints.txt scripts/install.sh | cksum | tr ' ' '-')
INSTALLED := $(VENV)/.installed-$(KEY)

# One thread per process: several wait for each other, and on cores that other programs use become ten times slower.
export OMP_NUM_THREADS ?= 1
# Time limit of a notebook cell under `make test`, seconds.
CELL_TIMEOUT ?= 900
PYTEST_ARGS ?=
NOTEBOOKS ?= $(wildcard notebooks/*.ipynb)
# The pages that `make tables` builds.
TABLES ?= tables ablation architecture qualitative analysis photographs performance

.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: help install data book tables check-book pdf test test-unit test-notebooks test-lowest lint format sync clean clean-all

help: ## show this list
	@echo "make TARGET, where TARGET is"
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sort | awk -F ':.*## ' '{printf "  %-15s %s\n", $$1, $$2}'
	@echo "Settings: VENV=.venv  PYTHON=python3.11  TORCH_INDEX=<index of torch builds>  DPOSE_DATA=<data folder>  PYTEST_ARGS=..."

$(INSTALLED):
	@sh scripts/install.sh $(VENV)
	@rm -f $(VENV)/.installed-*
	@touch $@

install: $(INSTALLED) ## make the virtual environment (.venv)

data: $(INSTALLED) ## make the open data, synthetic people (in a cache folder of the user, or in DPOSE_DATA)
	@echo "==> open data"
	@$(RUN)/dpose synth

book: $(INSTALLED) data ## the open data, all notebooks executed, the HTML book
	@echo "==> book"
	@$(RUN)/python scripts/build_book.py

tables: $(INSTALLED) data ## the pages of tables and figures alone, from checkpoints and results (in _build/pages)
	@echo "==> tables"
	@$(RUN)/python scripts/build_book.py --pages $(TABLES)

check-book: $(INSTALLED) ## open each built page in headless Chromium without network, and report faults
	@$(RUN)/python scripts/check_book.py

pdf: $(INSTALLED) ## print the built book into _build/dpose.pdf with headless Chromium
	@$(RUN)/python scripts/print_book.py

test: lint test-unit test-notebooks ## lint, unit tests, and shortened runs of all notebooks

test-unit: $(INSTALLED) ## unit tests only, in two processes
	@echo "==> unit tests"
	@$(RUN)/python -m pytest -n 2 --dist loadfile $(PYTEST_ARGS) tests

test-notebooks: $(INSTALLED) data ## all notebooks with the shortened parameters of their metadata
	@echo "==> notebooks"
	@$(RUN)/python -m pytest $(PYTEST_ARGS) --nbmake --nbmake-timeout=$(CELL_TIMEOUT) $(NOTEBOOKS)

test-lowest: $(INSTALLED) ## a part of the unit tests with the lowest versions that pyproject.toml allows (in .venv-lowest)
	@echo "==> lowest versions"
	@$(RUN)/python scripts/check_lowest.py $(VENV)-lowest

lint: $(INSTALLED) ## ruff check and ruff format --check
	@echo "==> lint"
	@$(RUN)/ruff check .
	@$(RUN)/ruff format --check .

format: $(INSTALLED) ## apply the fixes of ruff
	@$(RUN)/ruff check --fix .
	@$(RUN)/ruff format .

sync: $(INSTALLED) ## write notebooks/*.ipynb from their .py
	@$(RUN)/python scripts/sync_notebooks.py

clean: ## remove the built book and its cache
	rm -rf _build

clean-all: clean ## remove the virtual environments too
	rm -rf $(VENV) $(VENV)-lowest
