# Two commands: `make book` and `make test`. `make help` lists the rest.
.DEFAULT_GOAL := help
.PHONY: help book test test-oldest test-newest gpu outputs status environment clean

# python3.11 if it works here, else any python3 from 3.10 on; `make PYTHON=...` chooses another.
PYTHON = $(shell for name in python3.11 python3; do \
	"$$name" -c 'import sys; sys.exit(sys.version_info < (3, 10))' >/dev/null 2>&1 && echo "$$name" && break; done)
RUN = .venv/bin/python
TEST_PROCESSES ?= logical
LIBRARY_TESTS = tests/models tests/training tests/tasks tests/test_metrics.py tests/test_seeds.py tests/test_files.py \
	tests/test_frames.py tests/test_frames_data.py tests/test_compare.py tests/test_advice.py tests/test_estimator.py \
	tests/test_export.py tests/test_serving.py

export PYTHONPATH := book
export PYTHONNOUSERSITE := 1

help: ## list the targets
	@echo "make book     run the chapters and build the pages; prints what to open"
	@echo "              PRESET=smoke|laptop|paper    how much is run (default smoke)"
	@echo "              DEVICE=auto|cpu|cuda         where (default auto: each cell takes the faster one)"
	@echo "              CENSUS_DATA=auto|real|simulated   (default auto: real when they can be had)"
	@echo "              KUAIRAND_DATA=auto|real|simulated (the same)"
	@echo "              MMOE_DATA=/folder            where the real files lie, if they are not to be downloaded"
	@echo "make test     ruff, mypy, and pytest over tests/ and every notebook"
	@echo "make test-oldest, make test-newest   the library's tests with the lowest, or the newest, versions that"
	@echo "              pyproject.toml allows, each in an environment of its own; PYTHON as above"
	@echo "make gpu      for who has a GPU for MINUTES (default 30): tests, benchmark, studies and chapters on it;"
	@echo "              with PYTHON's own torch, nothing is downloaded; goes on where it stopped"
	@echo "make outputs  run the chapters with their own parameters and store the outputs in them"
	@echo "make status   time every chapter, on an idle machine, for the status page; PRESET, DEVICE ... as above"
	@echo "make clean    remove what was computed; .venv and data/cache stay"

book: environment ## execute the chapters, build the pages
	@$(RUN) -m _scripts.build

test: environment ## lint, types, tests, notebooks
	@$(RUN) -m ruff check
	@$(RUN) -m ruff format --check
	@$(RUN) -m mypy
	@$(RUN) -m pytest --nbval --nbval-current-env --nbval-cell-timeout=600 \
		-n $(TEST_PROCESSES) --maxprocesses 4 --dist loadfile

test-oldest: BOUNDS = --constraint .venv-oldest/bounds.txt
test-oldest: LEFT_OUT = -k "not compile" # torch 2.4 and 2.5 do not trace a whole step as one graph
test-oldest test-newest: test-%: ## the library's tests with the lowest, or the newest, versions that are allowed
	@$(PYTHON) -m venv --clear .venv-$*
	@$(PYTHON) -m _scripts.bounds > .venv-$*/bounds.txt
	@.venv-$*/bin/python -m pip install --quiet --upgrade $(BOUNDS) --editable ".[study]" pytest pytest-timeout pytest-xdist
	@TQDM_DISABLE=1 CENSUS_DATA=simulated KUAIRAND_DATA=simulated .venv-$*/bin/python -m pytest \
		-n $(TEST_PROCESSES) --maxprocesses 4 --dist loadfile $(LEFT_OUT) $(LIBRARY_TESTS)

gpu: ## what wants a GPU, with the Python whose torch sees it
	@$(PYTHON) -m _scripts.gpu --minutes $(or $(MINUTES),30)

outputs: environment ## refresh stored outputs
	@$(RUN) -m _scripts.outputs

status: environment ## run every chapter once and note its seconds in data/results/chapters.csv
	@$(RUN) -m _scripts.status

environment: # .venv with everything; does nothing when it is up to date
	@test -n "$(PYTHON)" || { echo "error: no Python 3.10 or newer: run \`sudo apt install python3 python3-venv\`" >&2; exit 1; }
	@$(PYTHON) book/_scripts/set_up.py

clean: ## remove what was computed
	rm -rf _build .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -not -path './.venv/*' -prune -exec rm -rf {} +
