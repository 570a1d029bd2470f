# The whole life of a checkout.  Needs python3 (3.11 to 3.13, with venv), git and make; everything else goes into .venv.
PYTHON ?= python3
# the versions to install: constraints.txt, constraints-oldest.txt or constraints-newest.txt, each in an environment of its
# own: .venv, .venv-oldest, .venv-newest
CONSTRAINTS ?= constraints.txt
VENV := .venv$(patsubst constraints%.txt,%,$(CONSTRAINTS))
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint $(CONSTRAINTS)
# processes that share the tests; the first that needs Numba's kernels compiles them, the others wait for it.  More than
# there are cores only take each other's time; WORKERS=0 runs them in this process
WORKERS ?= 2
PYTEST := $(BIN)/python -m pytest
# who has nothing left to do takes half of what the other has
TEST := $(PYTEST) -m "not slow" -n $(WORKERS) --dist worksteal

# modules are compiled once, not again by each of the hundred processes that the tests start
unexport PYTHONDONTWRITEBYTECODE

.PHONY: demo test test-slow test-gpu sanitize-gpu on-card check bench bench-check bench-gpu readme docs install clean distclean

demo: $(STAMP)
	$(BIN)/gpuaug demo

test: $(STAMP)
	$(TEST)

test-slow: $(STAMP)
	$(PYTEST) -m slow

# on a machine with a CUDA card.  PY: another python that has torch and the rest, which then need not be installed;
# PYTHON_MORE: a folder of packages that it lacks; JOBS: processes that share the card, so that kernels are compiled side
# by side (needs pytest-xdist); ALL=1: the slow tests too, of the same kinds with kernels of their own
PY ?= $(BIN)/python
FROM_HERE := PYTHONPATH=.:kernels$(if $(PYTHON_MORE),:$(PYTHON_MORE))
ON_CARD := GPUAUG_DEVICE=cuda TRITON_INTERPRET=0 $(FROM_HERE)
INSTALLED = $(if $(filter $(BIN)/python,$(PY)),$(STAMP))
test-gpu: $(INSTALLED)
	$(ON_CARD) $(PY) -m pytest tests/gpu -W default -m "$(if $(ALL),slow or not slow,not slow)" $(if $(JOBS),-n $(JOBS) --dist loadgroup)

sanitize-gpu: $(INSTALLED)
	$(FROM_HERE) $(PY) tests/gpu/sanitize.py

bench-gpu: $(if $(filter $(BIN)/python,$(PY)),$(VENV)/.installed-bench)
	$(FROM_HERE) $(PY) -m bench.gpu $(ARGS)

# tests, bench and sanitizer, in order of worth, inside a quarter of an hour; what is missing is said first
on-card: $(INSTALLED)
	$(FROM_HERE) $(PY) tests/gpu/everything.py $(if $(JOBS),--jobs $(JOBS)) $(ARGS)

check: $(STAMP)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(TEST)

# what gpuaug is compared with is large, and no test needs it
BENCH := $(VENV)/.installed-bench
$(BENCH): $(STAMP)
	$(PIP) --no-build-isolation --editable '.[dali,demo,test,check,bench]'
	@touch $@

bench: $(BENCH)
	$(BIN)/gpuaug bench --store
	$(BIN)/python -m bench.report.readme

bench-check: $(BENCH)
	$(BIN)/python -m bench.guard

readme: $(STAMP)
	$(BIN)/python -m bench.report.readme

# mkdocs imports gpuaug and the Specs of the tests, from which it makes a page for each transform; --strict: a warning,
# such as a link that leads nowhere, is an error
DOCS := $(VENV)/.installed-docs
$(DOCS): $(STAMP)
	$(PIP) --no-build-isolation --editable '.[dali,demo,test,check,docs]'
	@touch $@

docs: $(DOCS)
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict

install: $(STAMP)

# the build tools come first, so that the versions in constraints.txt hold for the build too
$(STAMP): pyproject.toml $(CONSTRAINTS)
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; (3, 11) <= v <= (3, 13) or sys.exit("gpuaug needs Python 3.11 to 3.13, got %d.%d; try make PYTHON=python3.12" % v)'
	@$(BIN)/python -m pip --version > /dev/null 2>&1 || $(PYTHON) -m venv --clear $(VENV)
	@echo "installing into $(VENV): several GB, minutes the first time"
	$(PIP) hatchling editables
	$(PIP) --no-build-isolation --editable '.[dali,demo,test,check]'
	@touch $@

clean:
	rm -rf build dist site bench_report demo_data demo_data.part demo.png .pytest_cache .mypy_cache .ruff_cache .hypothesis .benchmarks
	find . -name __pycache__ -type d -not -path './.venv*/*' -prune -exec rm -rf {} +

distclean: clean
	rm -rf .venv .venv-oldest .venv-newest .compiled
