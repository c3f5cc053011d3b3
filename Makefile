# make demo | test | test-slow | test-gpu | lint | clean. Needs make and Python >= 3.11; everything else goes into .venv.

VENV  := .venv
BIN   := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: help demo test tests test-slow test-gpu lint clean
.DEFAULT_GOAL := help

help:
	@echo "make demo       draw a practice plot, train on it, evaluate (minutes, no network after the install)"
	@echo "make test       lint, types, tests"
	@echo "make test-slow  the tests that take minutes"
	@echo "make test-gpu   the tests that need an NVIDIA GPU (minutes; without one they are skipped)"
	@echo "make lint       lint and types only"
	@echo "make clean      remove caches and build leftovers (not .venv, not outputs)"

demo: $(STAMP)
	$(BIN)/cabruca demo

# lint and tests at the same time: mypy has one core, and the tests wait for workers now and then
test: $(STAMP)
	@$(MAKE) --no-print-directory -j2 lint tests

tests: $(STAMP)
	$(BIN)/python -m pytest -n auto --maxprocesses 4 --dist loadscope

test-slow: $(STAMP)
	$(BIN)/python -m pytest -m slow

test-gpu: $(STAMP)
	$(BIN)/python -m pytest -m "" -rs tests/gpu

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

clean:
	rm -rf build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find cabruca tests -type d -name __pycache__ -prune -exec rm -rf {} +

# The stamp is newer than pyproject.toml exactly when its dependencies are installed.
$(STAMP): pyproject.toml
	@if [ -x $(BIN)/python ]; then \
	  $(BIN)/python -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	    echo "make: $(VENV) is of a Python older than 3.11; remove it (rm -r $(VENV)) and run make again" >&2; exit 1; }; \
	else \
	  found=; bare=; \
	  for python in python3.13 python3.12 python3.11 python3; do \
	    $$python -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1 || continue; \
	    if $$python -c 'import ensurepip, venv' >/dev/null 2>&1; then found=$$python; break; fi; \
	    bare=$${bare:-$$python}; \
	  done; \
	  if [ -z "$$found" ] && [ -n "$$bare" ]; then \
	    version=$$($$bare -c 'import sys; print("%d.%d" % sys.version_info[:2])'); \
	    echo "make: $$bare cannot make virtual environments (no ensurepip);" \
	      "on Debian and Ubuntu: sudo apt install python$$version-venv, then run make again" >&2; exit 1; fi; \
	  if [ -z "$$found" ]; then \
	    echo "make: no Python >= 3.11 found (tried python3.13, python3.12, python3.11, python3);" \
	      "install one from your system's packages or https://www.python.org, then run make again" >&2; exit 1; fi; \
	  echo "making $(VENV) with $$found"; \
	  $$found -m venv $(VENV) || { rm -rf $(VENV); exit 1; }; \
	fi
	@$(BIN)/python -m pip --version >/dev/null 2>&1 || $(BIN)/python -m ensurepip --upgrade >/dev/null || { \
	  echo "make: $(VENV) has no pip; remove it (rm -r $(VENV)) and run make again" >&2; exit 1; }
	@echo "installing into $(VENV) (once; some minutes)"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@touch $@
