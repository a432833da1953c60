# Every target sets up what it needs in .venv by itself; nothing outside this folder is touched.
#
#   make demo      the bundled detector on the bundled photographs, at points of its ladder
#   make test      the tests, on all cores
#   make lint      ruff and pyright
#   make docs      the pages that are made from docstrings and flags
#   make bundled   train and measure again everything that the package ships

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

# The development environment holds all that the demo needs: where it exists, it serves.
DEV := $(VENV)/.installed-dev
BASE := $(if $(wildcard $(DEV)),$(DEV),$(VENV)/.installed)

# Photographs, annotations and the backbone's start, which are not part of the repository.
SHARED := $(abspath $(or $(SLIMDET_SHARED),../shared))
ANIMALS := $(SHARED)/data/animalpose

.PHONY: help demo test lint format docs bundled clean
.DELETE_ON_ERROR:

help:
	@sed -n 's/^#   //p' Makefile

demo: $(BASE)
	$(BIN)/slimdet demo

# One torch thread for each test process: more of them than cores would wait on one another.
test: $(DEV)
	OMP_NUM_THREADS=1 $(BIN)/pytest -n auto --maxprocesses 8 --dist worksteal

lint: $(DEV)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright --pythonpath $(BIN)/python

format: $(DEV)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: $(DEV)
	$(BIN)/python docs/make_api.py

bundled: $(DEV) runs/animalpose.yaml
	$(BIN)/python benchmarks/make_assets.py --shared $(SHARED)
	$(BIN)/python tools/bundled.py --data runs/animalpose.yaml \
		--weights $(SHARED)/data/weights/resnet50_thin0.5_open_nsfw_fp16.pth

runs/animalpose.yaml:
	@test -d $(ANIMALS) || { echo "no training photographs in $(ANIMALS): set SLIMDET_SHARED" >&2; exit 2; }
	@mkdir -p runs
	@for split in train val; do \
		printf '%s:\n  images: %s/images\n  annotations: %s/annotations/instances_%s.json\n' \
			$$split $(ANIMALS) $(ANIMALS) $$split; \
	done > $@

clean:
	rm -rf $(VENV) build .pytest_cache .ruff_cache .hypothesis

INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable

$(VENV)/.installed: pyproject.toml constraints.txt $(VENV)/.made
	@echo "Installing slimdet into $(VENV): less than a minute and about 200 MB of disk the first time."
	$(INSTALL) .
	@touch $@

# A stamp is written last: an interrupted set-up is taken up again, a changed pyproject.toml is installed anew.
$(VENV)/.installed-%: pyproject.toml constraints.txt $(VENV)/.made
	@echo "Installing slimdet[$*] into $(VENV): a few minutes and about 6 GB of disk the first time."
	$(INSTALL) '.[$*]'
	@touch $@

$(VENV)/.made:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
		echo "slimdet needs Python 3.11 or newer, $(PYTHON) is $$($(PYTHON) -V 2>&1); name another: make PYTHON=python3.12" >&2; \
		exit 1; }
	$(PYTHON) -m venv --clear $(VENV)
	@touch $@
