# What a developer types; "make" alone lists it. Everything is installed in .venv, and
# again only when a file that declares requirements has changed.

PYTHON ?= python3
# Processes that run tests: more than cores, as tests wait for the processes they start.
JOBS ?= 3
FAULTS ?= 1

VENV := .venv
BIN := $(VENV)/bin
STAMPS := $(VENV)/stamps
REQUIREMENTS := pyproject.toml setup.py sample/setup.py
PIP_INSTALL := $(BIN)/python -m pip --disable-pip-version-check install --quiet

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help demo serve check test faults bench lint format docs dist clean

help:  ## list the targets
	@sed -n 's/^\([a-z]*\):.*  ## \(.*\)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 16

demo: $(STAMPS)/demo  ## run the sample once: a web process, a worker, one import
	$(BIN)/python sample/demo.py

serve: $(STAMPS)/demo  ## run the sample until Ctrl-C, on http://localhost:6543
	$(BIN)/python sample/demo.py --serve

check: $(STAMPS)/lint  ## what to run while working: style, types, tests without processes or servers
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/pytest --quiet --numprocesses=$(JOBS) -m "not acceptance and not faults and not server"

# The processes that tests start work in other folders, and measure themselves too.
test: export COVERAGE_FILE := $(CURDIR)/.coverage
test: $(STAMPS)/test  ## run the whole test suite, with coverage
	$(BIN)/coverage erase
	$(BIN)/coverage run -m pytest --numprocesses=$(JOBS) --dist=worksteal -m "not faults"
	$(BIN)/coverage combine --quiet
	$(BIN)/coverage report

# One at a time: each has servers of its own, and counts what they lose.
faults: export PYRAMID_TASKS_FAULTS := $(FAULTS)
faults: $(STAMPS)/test  ## kill and stop things, and count what is lost; FAULTS=0.1 for a tenth
	$(BIN)/pytest -m faults -s

bench: $(STAMPS)/test  ## measure against plain Celery; QUICK=1 to try, WRITE=1 for docs/
	$(BIN)/python -m benchmarks $(if $(QUICK),--quick) $(if $(WRITE),--write docs/benchmarks.md)

lint: $(STAMPS)/lint  ## check style and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python typing_tests/check.py $(VENV)/celery-types

format: $(STAMPS)/lint  ## format the code
	$(BIN)/ruff format .

# A warning is an error, and so is a reference to what is not there.
docs: $(STAMPS)/docs  ## build the documentation, in docs/_build/html/index.html
	$(BIN)/sphinx-build --fail-on-warning --keep-going --nitpicky --quiet docs docs/_build/html

dist: $(STAMPS)/test  ## build the sdist, and the wheel from it, in dist/
	rm -rf dist
	$(BIN)/python -m build

clean:  ## remove everything that these targets made
	rm -rf $(VENV) .tox .coverage .coverage.* build dist docs/_build *.egg-info
	rm -rf sample/build sample/*.egg-info sample/var
	rm -rf .hypothesis .mypy_cache .pytest_cache .ruff_cache
	find benchmarks docs pyramid_tasks sample tests -name __pycache__ -type d -prune -exec rm -rf {} +

$(STAMPS)/venv:
	$(PYTHON) -m venv $(VENV)
	mkdir -p $(STAMPS)
	touch $@

$(STAMPS)/demo: $(STAMPS)/venv $(REQUIREMENTS)
	$(PIP_INSTALL) --editable . --editable sample
	touch $@

$(STAMPS)/test: $(STAMPS)/venv $(REQUIREMENTS)
	$(PIP_INSTALL) --editable '.[test]' --editable sample
	touch $@ $(STAMPS)/demo

$(STAMPS)/docs: $(STAMPS)/venv $(REQUIREMENTS)
	$(PIP_INSTALL) --editable '.[docs]'
	touch $@

# The types of what the sample uses are checked too, so it needs what the tests need.
$(STAMPS)/lint: $(STAMPS)/venv $(REQUIREMENTS) typing_tests/requirements.txt
	$(PIP_INSTALL) --editable '.[test,lint]' --editable sample
	$(PIP_INSTALL) --upgrade --no-deps --target $(VENV)/celery-types \
		--requirement typing_tests/requirements.txt
	touch $@ $(STAMPS)/test $(STAMPS)/demo
