# Two commands set everything up on a fresh machine: `make demo` and `make test`.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
export PIP_CONSTRAINT := $(CURDIR)/requirements/constraints.txt
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: demo test lint clean

demo: $(VENV)/.runtime
	$(BIN)/python tools/demo.py

test: $(VENV)/.tests
	$(BIN)/python -m pytest -q -n 2 tests

lint: $(VENV)/.tests
	$(BIN)/ruff check .
	$(BIN)/mypy

clean:
	rm -rf $(VENV) demo build *.egg-info

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; (3, 10) <= v <= (3, 12) or sys.exit("Python 3.10, 3.11 or 3.12 is needed (BasicSR 1.4.2 does not build on others), found %d.%d: make PYTHON=python3.11 …" % v)'
	$(PYTHON) -m venv $(VENV)

# torch first: BasicSR is built against it, without an isolated environment that would fetch another one.
# opencv-python needs libGL; a machine without it gets the headless build of the same version.
$(VENV)/.runtime: $(VENV)/bin/python requirements/constraints.txt requirements/runtime.txt requirements/demo.txt setup.py
	$(BIN)/python -m pip install -q --upgrade pip setuptools wheel
	$(BIN)/python -m pip install -q torch
	$(BIN)/python -m pip install -q -r requirements/runtime.txt -r requirements/demo.txt
	$(BIN)/python -c 'import cv2' 2>/dev/null || { \
	  $(BIN)/python -m pip uninstall -q -y opencv-python && $(BIN)/python -m pip install -q opencv-python-headless; }
	$(BIN)/python -m pip install -q --use-pep517 --no-deps --no-build-isolation basicsr
	$(BIN)/python -m pip install -q --no-deps --no-build-isolation -e .
	touch $@

$(VENV)/.tests: $(VENV)/.runtime requirements/tests.txt
	$(BIN)/python -m pip install -q -r requirements/tests.txt
	$(BIN)/python -m pip install -q --no-deps higher torchopt realesrgan
	touch $@
