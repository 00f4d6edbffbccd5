# Two commands set everything up on a fresh machine: `make demo` and `make test`; `make test-slow` tests what takes minutes.
# The mmagic half has two of its own: `make mmagic` installs it, `make test-mmagic` tests it.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
MMAGIC_VENV := .venv-mmagic
MMAGIC_BIN := $(MMAGIC_VENV)/bin
export PIP_CONSTRAINT := $(CURDIR)/requirements/constraints.txt
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: demo test mmagic test-slow test-mmagic lint clean

demo: $(VENV)/.runtime
	$(BIN)/python tools/demo.py

test: $(VENV)/.tests
	$(BIN)/python -m pytest -q -n 2 tests

test-slow: $(VENV)/.tests
	$(BIN)/python -m pytest -q -n 2 -m slow tests

mmagic: $(MMAGIC_VENV)/.runtime

test-mmagic: $(MMAGIC_VENV)/.tests
	$(MMAGIC_BIN)/python -m pytest -q -n 2 tests/mmagic

lint: $(VENV)/.tests
	$(BIN)/ruff check .
	$(BIN)/mypy

clean:
	rm -rf $(VENV) $(MMAGIC_VENV) demo build *.egg-info

$(VENV)/bin/python $(MMAGIC_BIN)/python:
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; (3, 10) <= v <= (3, 12) or sys.exit("Python 3.10, 3.11 or 3.12 is needed (BasicSR 1.4.2 does not build on others), found %d.%d: make PYTHON=python3.11 …" % v)'
	$(PYTHON) -m venv $(patsubst %/bin/python,%,$@)

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

# An environment of its own: mmagic holds diffusers, transformers and huggingface_hub back, and users of BasicSR need
# none of it. What it declares is not installed, see requirements/mmagic.txt.
$(MMAGIC_VENV)/.runtime: $(MMAGIC_BIN)/python requirements/constraints.txt requirements/mmagic-constraints.txt \
    requirements/mmagic.txt setup.py
	$(MMAGIC_BIN)/python -m pip install -q --upgrade pip setuptools wheel
	$(MMAGIC_BIN)/python -m pip install -q -r requirements/mmagic.txt
	$(MMAGIC_BIN)/python -m pip install -q --no-deps -c requirements/mmagic-constraints.txt mmengine mmcv-lite mmagic
	$(MMAGIC_BIN)/python -m pip install -q --no-deps --no-build-isolation -e .
	touch $@

# BasicSR is here because the tests compare the two halves.
$(MMAGIC_VENV)/.tests: $(MMAGIC_VENV)/.runtime requirements/mmagic-tests.txt
	$(MMAGIC_BIN)/python -m pip install -q -c requirements/mmagic-constraints.txt -r requirements/mmagic-tests.txt
	$(MMAGIC_BIN)/python -m pip install -q --no-deps -c requirements/mmagic-constraints.txt openmim model-index
	$(MMAGIC_BIN)/python -m pip install -q --use-pep517 --no-deps --no-build-isolation basicsr
	touch $@
