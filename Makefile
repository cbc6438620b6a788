# make quickstart   install, draw toy images, convert, train both tasks, evaluate, predict
# make test         install, run all tests
# make test-oldest  the same with the oldest packages that setup.cfg allows
# make lint         ruff; which room may import which

PYTHON ?= python3
VENV ?= .venv
CONSTRAINTS ?= constraints.txt
BIN = $(VENV)/bin

.PHONY: quickstart test test-oldest lint clean

quickstart: $(VENV)/installed
	$(BIN)/python -m deepduel.quickstart --output_dir=quickstart

test: $(VENV)/installed
	$(BIN)/python -m pytest --numprocesses=auto --dist=loadfile --durations=15

test-oldest:
	$(MAKE) test VENV=$(VENV)-oldest CONSTRAINTS=constraints-oldest.txt

lint: $(VENV)/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports

$(VENV)/installed: setup.cfg pyproject.toml $(CONSTRAINTS)
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --upgrade pip
	$(BIN)/python -m pip install --constraint $(CONSTRAINTS) --editable '.[test]'
	touch $@

clean:
	rm -rf $(VENV) $(VENV)-oldest quickstart build dist *.egg-info
