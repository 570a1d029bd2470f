# The whole life of a checkout.  Needs python3 (3.11 to 3.13, with venv), git and make; everything else goes into .venv.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt

.PHONY: demo test test-slow check bench bench-check readme install clean distclean

demo: $(STAMP)
	$(BIN)/gpuaug demo

test: $(STAMP)
	$(BIN)/python -m pytest -m "not slow"

test-slow: $(STAMP)
	$(BIN)/python -m pytest -m slow

check: $(STAMP)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/python -m pytest -m "not slow"

# what gpuaug is compared with is large, and no test needs it
BENCH := $(VENV)/.installed-bench
$(BENCH): $(STAMP)
	$(PIP) --no-build-isolation --editable '.[dali,demo,test,check,bench]'
	@touch $@

bench: $(BENCH)
	$(BIN)/gpuaug bench --store
	$(BIN)/python -m bench.readme

bench-check: $(BENCH)
	$(BIN)/python -m bench.guard

readme: $(STAMP)
	$(BIN)/python -m bench.readme

install: $(STAMP)

# the build tools come first, so that the versions in constraints.txt hold for the build too
$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; (3, 11) <= v <= (3, 13) or sys.exit("gpuaug needs Python 3.11 to 3.13, got %d.%d; try make PYTHON=python3.12" % v)'
	@$(BIN)/python -m pip --version > /dev/null 2>&1 || $(PYTHON) -m venv --clear $(VENV)
	@echo "installing into $(VENV): several GB, minutes the first time"
	$(PIP) hatchling editables
	$(PIP) --no-build-isolation --editable '.[dali,demo,test,check]'
	@touch $@

clean:
	rm -rf build dist bench_report demo_data demo_data.part demo.png .pytest_cache .mypy_cache .ruff_cache .hypothesis .benchmarks
	find . -name __pycache__ -type d -not -path './$(VENV)/*' -prune -exec rm -rf {} +

distclean: clean
	rm -rf $(VENV)
