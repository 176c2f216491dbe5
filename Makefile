# Needs python3 (3.11 or newer) and make. The first target that needs it sets up .venv; later ones reuse it.
PYTHON ?= python3
MINUTES ?= 6
OUT ?= demo
PHOTOS ?= ../shared/data/photos.tar
DATA ?= ../shared/data
WORK ?= experiments
BREAK ?=
BIN := .venv/bin
READY := .venv/.ready

.DEFAULT_GOAL := help
.PHONY: help demo test lint format bench break experiments cluster gpu picture clean

help:  ## this list
	@sed -n 's/^\([a-z]*\):.*## /\1|/p' $(MAKEFILE_LIST) | awk -F'|' '{ printf "make %-11s %s\n", $$1, $$2 }'

demo: $(READY)  ## draw faces, label, train for MINUTES=6, translate; writes OUT=demo and its page index.html
	$(BIN)/lanit demo --minutes $(MINUTES) --out $(OUT) --overwrite

test: $(READY)  ## the tests, without those marked network, gpu or cluster, on every processor
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n auto --maxprocesses 8 --dist worksteal

lint: $(READY)  ## ruff and mypy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(READY)  ## let ruff mend what it can
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(READY)  ## benchmarks, as ratios within one run; PHOTOS=a tar of photographs for those of embedding
	$(BIN)/python -m benchmarks.train_step
	@if test -f $(PHOTOS); then $(BIN)/python benchmarks/embed.py --photos $(PHOTOS); \
	else echo 'no $(PHOTOS) here: embedding was not measured'; fi

break: $(READY)  ## about 25 minutes: damaged files, kills, full disks, two writers, hints; BREAK=--quick for two
	$(BIN)/python -m benchmarks.breaking $(BREAK)

experiments: $(READY)  ## hours: supervision, label rules, ablations; into WORK=experiments; DATA=photographs
	$(BIN)/python -m benchmarks.experiments run --work $(WORK) --data $(DATA)
	$(BIN)/python -m benchmarks.experiments report --work $(WORK)

cluster: $(READY)  ## the tests that start many processes on a Ray cluster of their own; minutes
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -m cluster

gpu: $(READY)  ## the tests and benchmarks that need a CUDA device
	@if $(BIN)/python -c 'import sys, torch; sys.exit(not torch.cuda.is_available())'; \
	then $(BIN)/python -m pytest -q -m gpu && $(BIN)/python -m benchmarks.train_step --batch-size 8 \
	&& $(BIN)/python benchmarks/translate.py; \
	else echo 'no CUDA device here: the gpu tests and benchmarks were not run'; fi

picture: $(READY)  ## docs/faces.png: drawn faces beside what the sample model makes of them
	$(BIN)/python -m pipeline.sample_world.picture docs/faces.png

clean:  ## remove .venv and caches
	rm -rf .venv .mypy_cache .pytest_cache .ruff_cache build *.egg-info

# uv rather than pip does the installing: it is fast, and it takes torch and torchvision from one place, so they fit.
$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	|| { echo 'lanit needs Python 3.11 or newer: make PYTHON=/path/to/python3.11 ...' >&2; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv \
	|| { echo 'python3 cannot make a virtual environment: on Debian, apt install python3-venv' >&2; rm -rf .venv; exit 1; }
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt uv
	$(BIN)/uv pip install --python $(BIN)/python -c constraints.txt --build-constraints constraints.txt -e '.[dev,play]'
	$(BIN)/uv pip install --python $(BIN)/python --no-deps 'embedding-reader==1.8.1'  # a test reads with it; it caps pandas
	@touch $@
