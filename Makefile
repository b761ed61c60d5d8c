# Two commands do all the set-up: `make demo` and `make test`. All of them are safe to run again.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
DEMO := runs/demo

.PHONY: help demo test lint fast docs tables attack clean

help:
	@echo "make demo   install into $(VENV), fetch a small language model, compare hard and soft prompts, write $(DEMO)/report.html"
	@echo "make test   install into $(VENV), then lint, types and tests"
	@echo "make lint   the same, lint and types only"
	@echo "make fast   the quick half of the tests"
	@echo "make docs   install into $(VENV), then build the documentation into docs/_build/html"
	@echo "make tables score two spaces of 19,683 prompts whole, into runs/ (about 10 minutes each)"
	@echo "make attack try hostile files, folders, servers, plug-ins and kills (about 40 minutes); counts in results/reliability"
	@echo "make clean  remove $(VENV) and $(DEMO)"

demo: $(VENV)/.installed
	$(BIN)/promptsearch compare examples/demo.yaml --out $(DEMO)

test: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	OMP_NUM_THREADS=1 $(BIN)/pytest -n 2 --dist worksteal --cov --cov-report=term:skip-covered

lint: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

fast: $(VENV)/.installed-dev
	OMP_NUM_THREADS=1 $(BIN)/pytest -n 2 --dist worksteal -q tests/plain tests/tasks tests/report tests/prompts tests/test_readme.py tests/test_imports.py

docs: $(VENV)/.installed-docs
	$(BIN)/python docs/generate.py --check
	$(BIN)/sphinx-build -W --keep-going -q -b html docs docs/_build/html
	@echo "The documentation lies in docs/_build/html/index.html"

tables: $(VENV)/.installed
	for name in exhaustive-reviews exhaustive-frequent; do \
		OMP_NUM_THREADS=1 $(BIN)/promptsearch compare examples/$$name.yaml --out runs/$$name || exit 1; \
	done

attack: $(VENV)/.installed-dev
	$(BIN)/python -m attack --out results/reliability

clean:
	rm -rf $(VENV) $(DEMO)

# The stamps are touched last, so an installation that was interrupted is done again.
$(VENV)/.made:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "Python 3.11 or newer is needed, and $(PYTHON) is not: name one, as in make PYTHON=python3.12" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	@touch $@

$(VENV)/.installed: $(VENV)/.made pyproject.toml constraints.txt
	@echo "Installing into $(VENV); this takes a few minutes the first time."
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e .
	@touch $@

$(VENV)/.installed-docs: $(VENV)/.made pyproject.toml constraints.txt
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[docs]"
	@touch $(VENV)/.installed $@

$(VENV)/.installed-dev: $(VENV)/.made pyproject.toml constraints.txt
	@echo "Installing into $(VENV), with what the tests need; this takes a few minutes the first time."
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[dev,peft]"
	@touch $(VENV)/.installed $@
