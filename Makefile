# make reproduce   every chapter of the quick profile, then the book (PROFILE=paper: MNIST)
# make test        the tests, and the notebooks against their stored outputs
# make book        the committed book, nothing is trained
# make lab         the notebooks in JupyterLab
# make lint        ruff, mypy, and who may import whom
# make size        lines and files of the package and its tests, against their limits
# make bench       this package and its peers, in turns (BENCH="--device cuda" and the like)
# make clean       remove what the others built
# CONTRIBUTING.md has the commands that are needed less often.

PROFILE ?= quick
DEVICE ?= auto
PYTHON ?= python3
BENCH ?=
BIN := .venv/bin
# A file to a process. conftest.py puts the longest files first.
PYTEST := $(BIN)/pytest -n auto --dist loadfile --no-loadscope-reorder

.PHONY: reproduce test book lab lint size bench environment clean

reproduce: environment
	$(BIN)/cappaper reproduce --profile $(PROFILE) --device $(DEVICE)

test: environment
	$(PYTEST) --nbval tests cappaper notebooks

book: environment
	$(BIN)/jupyter-book build book/ -W

lab: environment
	$(BIN)/jupyter lab --notebook-dir=notebooks

lint: environment
	$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/mypy && $(BIN)/lint-imports

size: environment
	$(BIN)/python -m tests.size

# torchattacks pins an old requests, which it does not need here. The ledger keeps a checksum of
# every table.
bench: environment
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt --no-deps torchattacks
	$(BIN)/python -m benchmarks $(BENCH)
	$(BIN)/cappaper claims --write > /dev/null

environment: .venv/.installed

# Modules are compiled when they are imported: few are. adv-lib is a peer in a test, without its
# plots, whose package no longer builds.
.venv/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check --no-compile -c constraints.txt -e '.[dev]'
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt --no-deps adv-lib
	touch $@

clean:
	rm -rf build book/_build
