# make quickstart   install, draw toy images, convert, train both tasks, evaluate, predict
# make test         install, run the tests (without those of make test-scale)
# make test-oldest  the same with the oldest packages that setup.cfg allows
# make test-older-processor   the numeric tests with the kernels of a processor without AVX-512
# make test-keras-compat   load models of every kind in older versions of Keras and in the newest, each in an environment of its own
# make test-gpu     the tests that need a GPU (skipped where there is none); DEEPDUEL_GPU_TESTS_ON=CPU tries them on the CPU
# make test-scale   the long tests of several processes that train or feed one training, killed at every stage
# make test-wheel   build a wheel, install it elsewhere, run the quickstart from it, and walk from folders to an answer
# make lint         ruff; which package may import which; types; pip check; pip-audit where there is a network
# make fuzz         damaged files of every kind, FUZZ_EXAMPLES=20000 of each
# make docs         build the documentation into site/

PYTHON ?= python3
VENV ?= .venv
CONSTRAINTS ?= constraints.txt
BIN = $(VENV)/bin

.PHONY: quickstart test test-oldest test-older-processor test-keras-compat test-gpu test-scale test-wheel docs lint audit fuzz clean

quickstart: $(VENV)/installed
	$(BIN)/python -m deepduel.quickstart --output_dir=quickstart

test: $(VENV)/installed
	$(BIN)/python -m pytest --numprocesses=auto --dist=loadfile --max-worker-restart=0 --durations=15

test-oldest:
	$(MAKE) test VENV=$(VENV)-oldest CONSTRAINTS=constraints-oldest.txt

test-wheel:
	rm -rf build dist $(VENV)-wheel
	$(PYTHON) -m venv $(VENV)-wheel
	$(VENV)-wheel/bin/python -m pip install --upgrade pip
	$(VENV)-wheel/bin/python -m pip wheel --no-deps --wheel-dir dist .
	$(VENV)-wheel/bin/python -m pip install --constraint $(CONSTRAINTS) dist/*.whl
	cd "$$(mktemp -d)" && "$(abspath $(VENV))-wheel/bin/python" -m deepduel.quickstart --count=300
	cd "$$(mktemp -d)" && "$(abspath $(VENV))-wheel/bin/python" -I "$(CURDIR)/tests/wheel_walk.py"

# What an x86-64 processor of AVX2 without AVX-512 computes with (AMD Zen 2 and 3, Intel before Skylake-X).
# TensorFlow leaves oneDNN's operations to processors with AVX512_VNNI and computes in Eigen's own elsewhere,
# whose matrix products are oneDNN's again; XLA, NumPy and OpenBLAS each choose by a variable of their own.
OLDER_PROCESSOR = TF_ENABLE_ONEDNN_OPTS=0 ONEDNN_MAX_CPU_ISA=AVX2 XLA_FLAGS=--xla_cpu_max_isa=AVX2 \
	NPY_DISABLE_CPU_FEATURES="AVX512F AVX512CD AVX512_SKX AVX512_CLX AVX512_CNL AVX512_ICL AVX512_SPR X86_V4" \
	OPENBLAS_CORETYPE=Haswell

test-older-processor: $(VENV)/installed
	$(OLDER_PROCESSOR) $(BIN)/python -m pytest --numprocesses=auto --dist=loadfile --max-worker-restart=0 --durations=5 -m numeric

KERAS_VERSIONS ?= 3.8.0 3.10.0 3.12.0 newest

test-keras-compat: $(VENV)/installed $(KERAS_VERSIONS:%=$(VENV)-keras-%/installed)
	DEEPDUEL_KERAS_PYTHONS="$(KERAS_VERSIONS:%=$(VENV)-keras-%/bin/python)" $(BIN)/python -m pytest -m keras_compat tests/networks

$(VENV)-keras-%/installed:
	$(PYTHON) -m venv $(VENV)-keras-$*
	$(VENV)-keras-$*/bin/python -m pip install 'keras$(if $(filter newest,$*),,==$*)' tensorflow
	touch $@

test-gpu: $(VENV)/installed
	if command -v nvidia-smi; then $(BIN)/python -m pip install --constraint $(CONSTRAINTS) --editable '.[gpu,test]'; fi
	$(BIN)/python -m pytest -rs -m gpu tests/gpu

test-scale: $(VENV)/installed
	$(BIN)/python -m pytest --durations=5 -m scale

lint: $(VENV)/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports
	$(BIN)/mypy
	$(BIN)/python -m pip check
	$(MAKE) audit

# Known vulnerabilities of the pinned packages, where the network has the database.
audit:
	if $(PYTHON) -c "import socket; socket.create_connection(('api.osv.dev', 443), 5)" 2>/dev/null; then \
		$(PYTHON) -m venv $(VENV)-audit && $(VENV)-audit/bin/python -m pip install --quiet pip-audit && \
		$(VENV)-audit/bin/pip-audit --vulnerability-service=osv --no-deps --disable-pip --requirement=$(CONSTRAINTS); \
	else echo "pip-audit: no connection to api.osv.dev, left out"; fi

# Longer than the few seconds of `make test`: FUZZ_EXAMPLES cases for each kind of file, new ones each time.
FUZZ_EXAMPLES ?= 20000

fuzz: $(VENV)/installed
	FUZZ_EXAMPLES=$(FUZZ_EXAMPLES) $(BIN)/python -m pytest tests/fuzz --numprocesses=auto --hypothesis-show-statistics

docs: $(VENV)/installed-docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

$(VENV)/installed-docs: $(VENV)/installed
	$(BIN)/python -m pip install --constraint $(CONSTRAINTS) --editable '.[docs]'
	touch $@

$(VENV)/installed: setup.cfg pyproject.toml $(CONSTRAINTS)
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --upgrade pip
	$(BIN)/python -m pip install --constraint $(CONSTRAINTS) --editable '.[test]'
	touch $@

clean:
	rm -rf $(VENV) $(VENV)-oldest $(VENV)-wheel $(VENV)-keras-* quickstart build dist site *.egg-info
