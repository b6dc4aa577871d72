# `make book` and `make test` are all a reader needs; `make help` lists the rest. Every target can be repeated.
SHELL := /bin/bash
.DEFAULT_GOAL := help

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check
HTML := _build/html/index.html
BUILT := _build/.built
PORT ?= 8000

.PHONY: help book test lab serve-book notebooks bench bench-gpu resources soak set-repo clean

help: ## list the commands
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "make %-11s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "$(PYTHON) is older than 3.11 or missing; install Python 3.11 or name it: make PYTHON=python3.12 book"; exit 2; }
	@$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); echo "no virtual environment; on Debian: apt-get install python3-venv"; exit 2; }

# Reading needs no torch; running does. Each stamp is touched only after its installation succeeded.
$(VENV)/.book: pyproject.toml | $(BIN)/python
	@echo "installing what the book needs (a minute or two, once)"
	@$(PIP) -e ".[book]" && touch $@

# Without a GPU torch's own index saves gigabytes of CUDA; where it is out of reach the next line takes the default build.
$(VENV)/.run: requirements.txt $(VENV)/.book
	@echo "installing what the engine and the tests need (a few minutes, once)"
	@nvidia-smi --list-gpus >/dev/null 2>&1 || $(BIN)/python -c 'import torch' 2>/dev/null \
	  || $(PIP) --retries 0 --timeout 5 "$$(grep -o '^torch[=0-9.]*' requirements.txt)" \
	       --index-url https://download.pytorch.org/whl/cpu 2>/dev/null || true
	@$(PIP) -r requirements.txt && touch $@

# A page whose warning stopped a build is cached and would pass the next time: without the stamp everything is read again.
book: $(VENV)/.book ## build the HTML book, warnings as errors, and print its path
	@all=$$([ -e $(BUILT) ] || { rm -rf _build/html; echo --all; }); rm -f $(BUILT); mkdir -p _build; \
	  $(BIN)/jupyter-book build . -W -n --keep-going -q $$all >_build/log.txt || { cat _build/log.txt; exit 1; }; \
	  touch $(BUILT); echo "open $(CURDIR)/$(HTML)"

test: book $(VENV)/.run ## everything: lint, unit and property tests, mutants, notebooks, the built book in a browser
	@$(BIN)/python tests/stages.py

lab: $(VENV)/.run ## open the labs in JupyterLab
	@$(BIN)/jupyter lab labs

serve-book: book ## serve the built book on http://127.0.0.1:8000 (PORT=…)
	@echo "http://127.0.0.1:$(PORT)/ (Ctrl-C ends it)"
	@$(BIN)/python -m http.server --bind 127.0.0.1 --directory _build/html $(PORT)

notebooks: $(VENV)/.run ## re-execute notebooks in place and normalise them (NB="book/01_….ipynb …" for some)
	@$(BIN)/python -m labcore.learn.authoring $(NB)

bench: $(VENV)/.run ## measure this machine and write a recorded run to book/results
	@$(BIN)/labcore bench all --out book/results

bench-gpu: $(VENV)/.run ## the same on the GPU
	@$(BIN)/labcore bench all --device cuda --out book/results

resources: $(VENV)/.run ## compile every kernel for four chips and record what it would use of them
	@$(BIN)/python -m labcore.kernels._compile --write

soak: book $(VENV)/.run ## long property tests, million-step runs, the built book in every setting
	@LABCORE_SOAK=1 OMP_NUM_THREADS=1 $(BIN)/python -m pytest tests -m "soak or not browser"

set-repo: ## write the repository's address everywhere: make set-repo REPO=owner/name
	@$(PYTHON) -m labcore.learn.repository "$(REPO)"

clean: ## delete what was built, and the environment
	@rm -rf _build $(VENV) .pytest_cache .ruff_cache .hypothesis .import_linter_cache
