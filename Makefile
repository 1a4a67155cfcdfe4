# Each target works in a fresh clone: the first one makes $(VENV) and installs everything there.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
WHEEL_VENV := build/wheel-venv
LIGHT_VENV := build/light-venv

.PHONY: help install demo web web-test react-native-test test test-slow test-avx2 lint typing wheel-test arm64-test clean

help:
	@echo "make install     install keras-psr (editable) and the development tools into $(VENV)"
	@echo "make demo        fit, export, enlarge and score on a few photographs; results are in demo/"
	@echo "make web         build the npm package and the page of keras-psr demo, with Node.js"
	@echo "make web-test    test both in Chromium, Firefox and WebKit, as far as they are installed"
	@echo "make react-native-test  check the types of the React Native example, bundle it, and run its loop in Node"
	@echo "make test        run the fast tests"
	@echo "make test-slow   run the slow tests"
	@echo "make test-avx2   run the tests that fit networks as on an x86-64 processor with nothing newer than AVX2"
	@echo "make lint        check style and formatting with ruff"
	@echo "make typing      check types with mypy"
	@echo "make wheel-test  build the source archive and the wheel, install the wheel in full and light, and test both"
	@echo "make arm64-test  compare shipped models on an emulated ARM64 processor (needs Debian and qemu-user-static)"
	@echo "make clean       remove everything that these commands made"

install: $(READY)

$(READY): pyproject.toml setup.py
	@echo "== Installing into $(VENV): one to two minutes"
	@$(PYTHON) -c 'import sys; sys.version_info >= (3, 10) or sys.exit("Python 3.10 or newer is needed: make PYTHON=python3.12")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --upgrade pip
	$(BIN)/pip install --quiet -e '.[dev]'
	touch $@

# Batches are small because VGG16, which sees each crop, takes most of the time with such a small network.
DEMO_FIT := --init x4-fast --architecture fast --num-filters 32 --learning-rate 1e-4 --batch-size 4 --steps 120 --save-every 120

# The fit does not see the photograph that is enlarged.
demo: $(READY)
	@echo "== 1 of 5: Reducing a photograph: a few seconds"
	$(BIN)/python tools/demo.py before demo
	@echo "== 2 of 5: Fitting x4-fast to five other photographs: about a minute"
	$(BIN)/keras-psr fit $(DEMO_FIT) --out demo/tuned --overwrite
	@echo "== 3 of 5: Exporting the network to int8 and comparing the file with it: half a minute"
	$(BIN)/keras-psr export demo/tuned --tflite --quantize int8 --out demo --overwrite
	@echo "== 4 of 5: Enlarging the reduced photograph with the file: a few seconds"
	$(BIN)/keras-psr upscale demo/low_res.png --model demo/tuned_int8.tflite -o demo/upscaled.png --overwrite
	@echo "== 5 of 5: Scoring the file and bicubic against the photograph: half a minute"
	$(BIN)/keras-psr evaluate --model demo/tuned_int8.tflite --data demo/original.png
	$(BIN)/python tools/demo.py after demo

# Only the package and the page need Node.js and what npm fetches.
web:
	@sh web/check_node.sh
	cd web && npm ci --no-audit --no-fund && npm run build

web-test: $(READY) web
	@cd web && node test/browsers.js
	cd web && PYTHON=$(abspath $(BIN))/python npm test

react-native-test: $(READY) web
	cd examples/react-native && npm ci --no-audit --no-fund && npm run typecheck && npm run bundle
	cd examples/react-native && PYTHON=$(abspath $(BIN))/python npm test

# Tests keep one core busy, so two processes share the files: in half the time, with 2.5 GB of memory each.
test: $(READY)
	$(BIN)/pytest --numprocesses 2 --dist loadfile

# pytest exits with 5 when no test is selected.
test-slow: $(READY)
	$(BIN)/pytest -m slow || [ $$? -eq 5 ]

# TensorFlow computes with oneDNN, which this variable limits. On ARM and on older processors it changes nothing.
FITTING := training losses networks tasks test_cli_fit.py
test-avx2: $(READY)
	ONEDNN_MAX_CPU_ISA=AVX2 $(BIN)/pytest $(addprefix tests/,$(FITTING))

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

# In an editable installation mypy does not find cli/ and export/ below keras_psr, so it reads the tree of a wheel.
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
	@echo "The light installation takes $$(du -sm $(LIGHT_VENV) | cut -f1) MB, the full one $$(du -sm $(WHEEL_VENV) | cut -f1) MB."
	$(LIGHT_VENV)/bin/pip install --quiet pytest
	cd build/empty && $(abspath $(LIGHT_VENV))/bin/pytest $(addprefix $(CURDIR)/tests/test_,light_installation.py packaging.py main.py)

# Everything except the emulator is fetched into build/arm64 and stays there.
arm64-test: $(READY)
	$(BIN)/python tools/arm64.py

clean:
	rm -rf .venv .ci-venv build dist demo keras_psr/page web/node_modules web/dist web/LICENSE web/screenshots *.egg-info .mypy_cache .pytest_cache .ruff_cache
	rm -rf $(addprefix examples/react-native/,node_modules assets build .expo)
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
