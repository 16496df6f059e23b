# make reproduce   every chapter of the quick profile, then the book (PROFILE=paper: MNIST)
# make test        the tests, then the notebooks against their stored outputs
# make wheel       a wheel, installed in an empty environment
# make book        the committed book, nothing is trained
# make lab         the notebooks in JupyterLab
# make notebooks   run the notebooks again and store their outputs
# make bench       this package and its peers, in turns (BENCH="--device cuda" and the like)
# make trust       kills, damage and nonsense, counted for the page How it is tested (an hour)
# make mutants     mutants of the code that decides: do the tests notice? (two hours)
# make doubled     the chapters that decide, twice the training and twice the attack (two hours)
# make referee     the strongest attack beside AutoAttack's own code, on the networks that come along
# make release     wheel, sdist and a bill of materials in dist/, checked
# make coverage    lines and branches that tests, doctests and kernels reach (half an hour)
# make ends        the tests with the oldest and the newest versions that pyproject.toml allows
# make lint        ruff, mypy, and who may import whom

PROFILE ?= quick
DEVICE ?= auto
PYTHON ?= python3
BENCH ?=
ENDS ?= lowest-direct highest
BIN := .venv/bin
# The ledger keeps a checksum of every table.
SUMS := $(BIN)/cappaper claims --write > /dev/null
# A file to a process: small networks leave a second thread nothing to do.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/pytest -n auto --dist loadfile

.PHONY: reproduce test wheel bench trust doubled referee mutants release coverage ends book lab notebooks lint environment clean

reproduce: environment
	$(BIN)/cappaper reproduce --profile $(PROFILE) --device $(DEVICE)

test: environment
	$(PYTEST)
	$(PYTEST) --nbval notebooks/

wheel: environment
	$(BIN)/pytest -m wheel tests/test_wheel.py

book: environment
	$(BIN)/jupyter-book build book/ -W

lab: environment
	$(BIN)/jupyter lab --notebook-dir=notebooks

notebooks: environment
	$(BIN)/cappaper refresh

# torchattacks pins an old requests, which it does not need here.
bench: environment
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt --no-deps torchattacks
	$(BIN)/python -m benchmarks $(BENCH)
	$(SUMS)

# One file after the other: side by side, a process's share of the data can get lost.
coverage: environment
	$(BIN)/coverage erase
	for part in tests/test_*.py cappaper; do \
	  OMP_NUM_THREADS=1 $(BIN)/pytest $$part --cov --cov-append --cov-report= || exit 1; done
	$(BIN)/coverage report --show-missing --skip-covered
	$(BIN)/python -m tests.covered
	$(SUMS)

# The package's and the book's own ranges; the tools around them are the newest. UV_TORCH_BACKEND=cpu
# keeps CUDA out, and WITH="torch==2.13.0" holds a package fast.
ends: environment
	set -e; for end in $(ENDS); do at="--quiet --python build/$$end"; \
	  $(BIN)/uv venv --quiet --clear --python $(PYTHON) build/$$end; \
	  $(BIN)/uv pip install $$at --resolution $$end -e '.[paper]' $(WITH); \
	  $(BIN)/uv pip install $$at -e '.[dev]' $(WITH); \
	  $(BIN)/uv pip install $$at --no-deps adv-lib; \
	  OMP_NUM_THREADS=1 build/$$end/bin/pytest -n auto --dist loadfile; done

release: environment
	rm -rf dist
	$(BIN)/python -m build --outdir dist
	$(BIN)/twine check --strict dist/*
	$(BIN)/cyclonedx-py environment $(BIN)/python --pyproject pyproject.toml -o dist/cappaper.cdx.json

trust: environment
	$(BIN)/python -m tests.trust
	$(SUMS)

doubled: environment
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.doubled
	$(SUMS)

referee: environment
	$(BIN)/python -m tests.referee
	$(SUMS)

mutants: environment
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.mutants
	$(SUMS)

lint: environment
	$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/mypy && $(BIN)/lint-imports

environment: .venv/.installed

# adv-lib judges our attacks in a test. Its plotting dependency no longer builds, and the test does
# without it.
.venv/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt --no-deps adv-lib
	touch $@

clean:
	rm -rf build book/_build
