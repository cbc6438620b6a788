# make quickstart   install, draw toy images, convert, train both tasks, evaluate, predict
# make test         install, run all tests
# make lint         ruff

PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin

.PHONY: quickstart test lint clean

quickstart: $(VENV)/installed
	$(BIN)/python -m experiments.quickstart --output_dir=quickstart

test: $(VENV)/installed
	$(BIN)/python -m pytest --numprocesses=auto --dist=loadfile --durations=15

lint: $(VENV)/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

$(VENV)/installed: setup.cfg pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --upgrade pip
	$(BIN)/python -m pip install --constraint constraints.txt --editable '.[test]'
	touch $@

clean:
	rm -rf $(VENV) quickstart build dist *.egg-info
