# Each target works from a fresh clone: the first one called makes $(VENV) and installs everything there.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
WHEEL_VENV := build/wheel-venv
LIGHT_VENV := build/light-venv

.PHONY: help install demo web web-test test test-slow test-avx2 lint typing wheel-test arm64-test clean

help:
	@echo "make install     make $(VENV) and install keras-psr there, editable, with the development tools"
	@echo "make demo        fit x4-fast to a few photographs, export it to int8, enlarge another one, leave it in demo/"
	@echo "make web         build the page of keras-psr demo, with Node.js"
	@echo "make web-test    run the page's tests in Chromium, Firefox and WebKit, those that are here"
	@echo "make test        run the fast tests"
	@echo "make test-slow   run the slow tests"
	@echo "make test-avx2   run the tests that fit networks, as on an x86-64 processor with AVX2 and nothing newer"
	@echo "make lint        check style and formatting rules with ruff"
	@echo "make typing      check types with mypy"
	@echo "make wheel-test  build the source archive and the wheel, install the wheel elsewhere, whole and light, and try it"
	@echo "make arm64-test  run shipped models on an emulated ARM64 processor and compare, with qemu-user-static and apt"
	@echo "make clean       remove everything that these made"

install: $(READY)

$(READY): pyproject.toml setup.py
	@echo "== Installing into $(VENV): one to two minutes"
	@$(PYTHON) -c 'import sys; sys.version_info >= (3, 10) or sys.exit("Python 3.10 or newer is needed: make PYTHON=python3.12")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --upgrade pip
	$(BIN)/pip install --quiet -e '.[dev]'
	touch $@

# Small batches, because VGG16 sees each crop and takes most of the time of such a small network.
DEMO_FIT := --init x4-fast --architecture fast --num-filters 32 --learning-rate 1e-4 --batch-size 4 --steps 120 --save-every 120

# The photograph that is enlarged is not among those fitted to.
demo: $(READY)
	@echo "== 1 of 5: Making a small picture of a photograph: some seconds"
	$(BIN)/python tools/demo.py before demo
	@echo "== 2 of 5: Fitting x4-fast to five other photographs: about a minute"
	$(BIN)/keras-psr fit $(DEMO_FIT) --out demo/tuned --overwrite
	@echo "== 3 of 5: Exporting it to 8 bits and comparing both: half a minute"
	$(BIN)/keras-psr export demo/tuned --tflite --quantize int8 --out demo --overwrite
	@echo "== 4 of 5: Enlarging the small picture with the file: some seconds"
	$(BIN)/keras-psr upscale demo/low_res.png --model demo/tuned_int8.tflite -o demo/upscaled.png --overwrite
	@echo "== 5 of 5: Scoring the file and bicubic on the photograph: half a minute"
	$(BIN)/keras-psr evaluate --model demo/tuned_int8.tflite --data demo/original.png
	$(BIN)/python tools/demo.py after demo

# Node.js and what npm fetches are needed for the page only.
web:
	@sh web/check_node.sh
	cd web && npm ci --no-audit --no-fund && npm run build

web-test: $(READY) web
	@cd web && node test/browsers.js
	cd web && PYTHON=$(abspath $(BIN))/python npm test

test: $(READY)
	$(BIN)/pytest

# pytest exits 5 when it has no test to run.
test-slow: $(READY)
	$(BIN)/pytest -m slow || [ $$? -eq 5 ]

# TensorFlow computes with oneDNN, which can be held back. Elsewhere (ARM, an older processor) these are the same tests again.
FITTING := training style_transfer losses optimizer functional vgg networks style_networks cli_fit
test-avx2: $(READY)
	ONEDNN_MAX_CPU_ISA=AVX2 $(BIN)/pytest $(FITTING:%=tests/test_%.py)

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

# mypy does not see cli/ and export/ below keras_psr in an editable install, so it reads the tree that a wheel would hold.
typing: $(READY)
	rm -rf build/typing
	$(BIN)/python setup.py --quiet build_py --build-lib build/typing
	MYPYPATH=build/typing $(BIN)/mypy -p keras_psr

wheel-test: $(READY)
	rm -rf build/lib build/empty $(WHEEL_VENV) $(LIGHT_VENV) dist
	$(BIN)/python -m build --outdir dist . > /dev/null
	$(PYTHON) -m venv $(WHEEL_VENV)
	$(WHEEL_VENV)/bin/pip install --quiet "$$(echo dist/*.whl)[test]"
	mkdir build/empty
	cd build/empty && $(abspath $(WHEEL_VENV))/bin/pytest $(addprefix $(CURDIR)/tests/test_,packaging.py imports.py main.py)
	$(PYTHON) -m venv $(LIGHT_VENV)
	$(LIGHT_VENV)/bin/pip install --quiet -r requirements-runtime.txt
	$(LIGHT_VENV)/bin/pip install --quiet --no-deps dist/*.whl
	@echo "The light installation takes $$(du -sm $(LIGHT_VENV) | cut -f1) MB, the whole one $$(du -sm $(WHEEL_VENV) | cut -f1) MB."
	$(LIGHT_VENV)/bin/pip install --quiet pytest
	cd build/empty && $(abspath $(LIGHT_VENV))/bin/pytest $(addprefix $(CURDIR)/tests/test_,light_installation.py packaging.py main.py)

# Everything but the emulator comes into build/arm64 by itself and stays there.
arm64-test: $(READY)
	$(BIN)/python tools/arm64.py

clean:
	rm -rf .venv .ci-venv build dist demo keras_psr/page web/node_modules web/screenshots *.egg-info .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
