# Two commands for a newcomer: `make quickstart` and `make test`. Both need python3 >= 3.11 and make.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet
BUDGET ?= 40
# Idle threads sleep: tests start processes that would otherwise take each other's cores.
export OMP_WAIT_POLICY ?= PASSIVE

.PHONY: quickstart test test-all lint bench clean

quickstart: $(VENV)/installed
	$(BIN)/rankloom quickstart $(ARGS)

test: $(VENV)/installed-dev lint
	$(BIN)/python -m pytest $(ARGS)

test-all: $(VENV)/installed-dev lint
	$(BIN)/python -m pytest -m "not gpu" $(ARGS)

lint: $(VENV)/installed-dev
	$(BIN)/ruff check src tests benchmarks
	$(BIN)/ruff format --check src tests benchmarks
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache

bench: $(VENV)/installed-dev
	$(BIN)/python -m benchmarks.run $(NAME) --budget $(BUDGET) $(ARGS)

# torch comes first and alone, pinned: a range could draw a build with gigabytes of GPU libraries.
$(VENV)/installed: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed")'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(PIP) install $$(grep '^torch==' constraints.txt)
	$(PIP) install --constraint constraints.txt --editable .
	touch $@

$(VENV)/installed-dev: $(VENV)/installed
	$(PIP) install --constraint constraints.txt --editable '.[dev]'
	touch $@

clean:
	rm -rf $(VENV) .bench
