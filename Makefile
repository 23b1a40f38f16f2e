# What a developer types; "make" alone lists it. Everything is installed in .venv, and
# again only when a file that declares requirements has changed.

PYTHON ?= python3
# Processes that run tests: more than cores, as tests wait for the processes they start.
JOBS ?= 6
FAULTS ?= 1
# How many of them at a time; default, one.
FAULTS_JOBS ?=
N ?= 60
# Not empty, to measure which lines and branches the tests run: a third longer.
COVERAGE ?=

# A wheel for "make test" to test, in an environment of its own, instead of the checkout.
WHEEL ?=

VENV := .venv$(if $(WHEEL),-wheel)
BIN := $(VENV)/bin
STAMPS := $(VENV)/stamps
REQUIREMENTS := pyproject.toml setup.py sample/setup.py
EXTRAS := debugtoolbar,outbox,redis,retry
PIP_INSTALL := $(BIN)/python -m pip --disable-pip-version-check install --quiet

# Without compiled files, each process that tests start compiles the package again.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help demo serve check test faults mutants bench lint format docs dist
.PHONY: celery-tests screenshots release-check style clean

help:  ## list the targets
	@sed -n 's/^\([a-z-]*\):.*  ## \(.*\)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 24

demo: $(STAMPS)/demo  ## run the sample once: a web process, a worker, one import
	$(BIN)/python sample/demo.py

serve: $(STAMPS)/demo  ## run the sample until Ctrl-C, on http://localhost:6543
	$(BIN)/python sample/demo.py --serve

# These tests wait for no process.
check: JOBS := 3
check: style  ## while working: style, types, the tests without processes and servers
	$(BIN)/pytest --quiet --numprocesses=$(JOBS) --dist=worksteal \
		-m "not acceptance and not faults and not server"

# The processes that tests start work in other folders, and measure themselves too.
test: export COVERAGE_FILE := $(CURDIR)/.coverage
test: $(STAMPS)/test  ## run the whole test suite; COVERAGE=1, WHEEL=dist/... for a wheel
	$(if $(WHEEL),$(PIP_INSTALL) --force-reinstall --no-deps $(WHEEL))
	$(if $(COVERAGE),$(BIN)/coverage erase)
	$(if $(COVERAGE),$(BIN)/coverage run) $(BIN)/pytest \
		--numprocesses=$(JOBS) --dist=worksteal -m "not faults"
	$(if $(COVERAGE),$(BIN)/coverage combine --quiet && $(BIN)/coverage report)

# Each has servers of its own, and prints what they lose. Several at a time print nothing.
faults: export PYRAMID_TASKS_FAULTS := $(FAULTS)
faults: $(STAMPS)/test  ## kill and stop things, and count what is lost; FAULTS=0.1 for a tenth
	$(BIN)/pytest -m faults \
		$(if $(FAULTS_JOBS),--numprocesses=$(FAULTS_JOBS) --dist=worksteal,-s)

mutants: $(STAMPS)/test  ## break the package in N=60 places, one at a time; SEED=1 for the same
	$(BIN)/python tests/mutants.py --jobs=$(JOBS) $(if $(SEED),--seed=$(SEED)) $(N)

bench: $(STAMPS)/test  ## measure against plain Celery; QUICK=1 to try, WRITE=1 for docs/
	$(BIN)/python -m benchmarks $(if $(QUICK),--quick) $(if $(WRITE),--write docs/benchmarks.md)

# On the source distribution of the installed Celery. The applications are the package's.
celery-tests: export PYTHONPATH := $(CURDIR)/tests
celery-tests: $(STAMPS)/celery-tests  ## run Celery's own tests; PARTS=unit for those without a worker
	$(BIN)/python -m celery_tests --folder $(VENV)/celery-tests --jobs $(JOBS) $(PARTS)

style: $(STAMPS)/lint
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

lint: style  ## check style and types
	$(BIN)/python typing_tests/check.py $(VENV)/celery-types

format: $(STAMPS)/lint  ## format the code
	$(BIN)/ruff format .

screenshots: $(STAMPS)/test  ## take the pictures of the sample and the panel again, for docs/
	SCREENSHOTS=1 $(BIN)/pytest --quiet -n 2 -k "no_worker or from_pending" \
		tests/sample/test_sample_browser.py tests/docs/test_debugtoolbar.py

# A warning is an error, and so is a reference to what is not there.
docs: $(STAMPS)/docs  ## build the documentation, in docs/_build/html/index.html
	$(BIN)/sphinx-build --fail-on-warning --keep-going --nitpicky --quiet docs docs/_build/html

dist: $(STAMPS)/test  ## build the sdist, and the wheel from it, in dist/
	rm -rf dist
	$(BIN)/python -m build

# With the TAG of a release, it must be that of this version. CHECKOUT is what the README
# has its readers set: what to install, in a new environment.
release-check: $(STAMPS)/release dist  ## build, and try what would be published
	$(if $(TAG),@ls dist/pyramid_tasks-$(TAG:v%=%).tar.gz || \
		{ echo "Error: $(TAG) is not the version in pyproject.toml." >&2; exit 1; })
	$(BIN)/twine check --strict dist/*
	CHECKOUT="$$(ls $(CURDIR)/dist/*.whl)" $(BIN)/pytest tests/docs/test_readme.py -k quickstart

clean:  ## remove everything that these targets made
	rm -rf .venv .venv-wheel .tox .coverage .coverage.* build dist docs/_build *.egg-info
	rm -rf sample/build sample/*.egg-info sample/var
	rm -rf .hypothesis .mutants .mypy_cache .pytest_cache .ruff_cache
	find benchmarks docs pyramid_tasks sample tests -name __pycache__ -type d -prune -exec rm -rf {} +

$(STAMPS)/venv:
	$(PYTHON) -m venv $(VENV)
	mkdir -p $(STAMPS)
	$(PIP_INSTALL) 'pip>=25.1'  # the first that knows --group
	touch $@

$(STAMPS)/demo: $(STAMPS)/venv $(REQUIREMENTS)
	$(PIP_INSTALL) --editable . --editable sample
	touch $@

$(STAMPS)/test: $(STAMPS)/venv $(REQUIREMENTS)
	$(PIP_INSTALL) --editable '.[$(EXTRAS)]' --group test --editable sample
	touch $@ $(STAMPS)/demo

$(STAMPS)/celery-tests: $(STAMPS)/test
	$(PIP_INSTALL) --group celery-tests
	touch $@

$(STAMPS)/release: $(STAMPS)/test
	$(PIP_INSTALL) --group release
	touch $@

$(STAMPS)/docs: $(STAMPS)/venv $(REQUIREMENTS)
	$(PIP_INSTALL) --editable '.[outbox]' --group docs
	touch $@

# The types of what the sample uses are checked too, so it needs what the tests need.
$(STAMPS)/lint: $(STAMPS)/venv $(REQUIREMENTS) typing_tests/requirements.txt
	$(PIP_INSTALL) --editable '.[$(EXTRAS)]' --group test --group lint --editable sample
	$(PIP_INSTALL) --upgrade --no-deps --target $(VENV)/celery-types \
		--requirement typing_tests/requirements.txt
	touch $@ $(STAMPS)/test $(STAMPS)/demo
