# What a person does here, each by one word. Every target sets up .venv first (bin/bootstrap; at once when it stands).

HOURS ?= 0.02
# More for the command behind a target: make train ARGS="--dataset notes.txt", make test ARGS="tests/store -x".
ARGS ?=
# Processes that test side by side; 0: in this one, which -s and --pdb need.
WORKERS ?= 2
# The Python of `make test-python`.
PY ?= python3.13

# Git's bash on Windows has Scripts where others have bin.
BIN := $(if $(filter Windows_NT,$(OS)),Scripts,bin)
PYTHON := .venv/$(BIN)/python
CODE := $(wildcard lightlm flows params tests benchmarks)

# Without bytecode every start compiles torch and Prefect anew.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
# In this order, whatever -j says: the last line of `make check` is the tests' closing line.
.NOTPARALLEL:
.PHONY: bench gpu help setup train studio test studio-test test-faults test-newest test-python mutants stack wheel-test web-test audit check lint types imports format clean

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "make %-11s %s\n", $$1, $$2}' Makefile

setup: ## Set up .venv: every package that LightLM and its tests need
	@bin/bootstrap

train: setup ## Train, score and register a model in HOURS hours (0.02 = 72 s)
	@.venv/$(BIN)/lightlm train --hours $(HOURS) $(ARGS)

studio: setup ## Open the studio in a browser: text, plan, training, writing, versions
	@.venv/$(BIN)/lightlm studio $(ARGS)

# A file stays in one process: its tests share what was expensive, such as a trained model or two servers. The order is
# that of tests/conftest.py, the long ones first.
test: setup ## Run the tests (10 to 15 minutes on two cores)
	@$(PYTHON) -m pytest --numprocesses $(WORKERS) --dist loadfile --no-loadscope-reorder $(ARGS)

# The seed is printed, FAULTS_SEED=... draws the same faults again.
test-faults: setup ## Kill, fill, corrupt, cut off: nothing may lose a run; and the slow tests (30 minutes)
	@$(PYTHON) -m pytest tests -m 'faults or slow' --numprocesses $(WORKERS) --dist loadfile $(ARGS)

# Changes the store, ledger, recorder and outbox in some 1,500 ways, for an hour; what survives, no test would have
# noticed. Fails where less than 85 % of a module's changes were noticed; done before is not done again.
# `make mutants ARGS="lightlm.store.journal*"` for one module; `.venv/bin/mutmut show NAME` prints a change.
mutants: setup ## Change the code that keeps what matters, line by line: do the tests notice? (mutmut)
	@.venv/$(BIN)/mutmut run $(ARGS)
	@$(PYTHON) tests/mutation_score.py

# Wants `pip install playwright` and `apt-get install chromium`; without them it is skipped, and says so.
studio-test: setup ## Drive the studio in a real browser: text in, 18 s trained, text out (1 minute)
	@$(PYTHON) -m pytest tests/studio/test_browser.py -m studio -rs $(ARGS)

# The newest packages that pyproject.toml allows, in an environment of their own; requirements.lock stays as it is.
# On Linux without a GPU, torch is the newest CPU build that bin/bootstrap finds.
test-newest: ## Run the tests with the newest packages that pyproject.toml allows (.venv-newest)
	@LIGHTLM_NEWEST=1 LIGHTLM_VENV=.venv-newest bin/bootstrap
	@.venv-newest/$(BIN)/python -m pip --disable-pip-version-check list --format=freeze \
		| grep -iE '^(torch|transformers|prefect|mlflow|fastapi|sqlalchemy|pydantic)=='
	@.venv-newest/$(BIN)/python -m pytest --numprocesses $(WORKERS) --dist loadfile --no-loadscope-reorder $(ARGS)

test-python: ## Run the tests on another Python: make test-python PY=python3.13 (.venv-python3.13)
	@PYTHON=$(PY) LIGHTLM_VENV=.venv-$(notdir $(PY)) bin/bootstrap
	@.venv-$(notdir $(PY))/$(BIN)/python -m pytest --numprocesses $(WORKERS) --dist loadfile --no-loadscope-reorder $(ARGS)

# Three minutes on two idle cores. Wants PostgreSQL's programs: apt-get install postgresql. .ci/run runs it, too.
stack: setup ## Run docker-compose.yml's commands on PostgreSQL: train, retrain, schedule, kill (3 to 6 minutes)
	@$(PYTHON) -m pytest tests/stack -m stack -s $(ARGS)

# .ci/run runs it, too. Nothing is downloaded: the new environment sees the packages of this one.
wheel-test: setup ## Build sdist and wheel, install them elsewhere, train and deploy there (1 to 2 minutes)
	@$(PYTHON) -m pytest tests/packaging -m wheel $(ARGS)

# Downloads 35 MB from npm and Playwright's client from PyPI; the browser is this machine's Chromium.
web-test: setup ## Export a page and let it write in headless Chromium (1 minute)
	@$(PYTHON) -m pip --disable-pip-version-check install --quiet 'playwright>=1.50'
	@$(PYTHON) -m pytest tests/versions -m web $(ARGS)

# A pin that cannot be asked about is named and ends it with 2, not a silent pass; the rest is audited. Asks pypi.org;
# `make audit ARGS="--vulnerability-service osv"` asks api.osv.dev.
audit: setup ## Ask whether a pinned package has a known vulnerability (pip-audit; needs the network)
	@$(PYTHON) bin/audit $(ARGS)

# Four minutes on two quiet cores; JSON and a plot each in bench-results, one table at the end. Longer ones:
# benchmarks/*.py --help.
bench: setup ## Measure the engine against rivals, goals and limits (under 5 minutes)
	@for name in tokenization generation loader steps startup; do $(PYTHON) benchmarks/$$name.py $(ARGS) || exit 1; done
	@$(PYTHON) benchmarks/results.py $(ARGS)

# Eight minutes on one card: the tests that want a GPU, then benchmarks/gpu.py. Without a GPU it says so and fails.
gpu: setup ## Test and measure the GPU of this machine (8 minutes)
	@$(PYTHON) -m pytest tests -m gpu $(ARGS)
	@$(PYTHON) benchmarks/gpu.py

lint: setup ## Look for mistakes and untidy code (ruff)
	@$(PYTHON) -m ruff check $(CODE)
	@$(PYTHON) -m ruff format --check $(CODE)

types: setup ## Check the types (pyright)
	@$(PYTHON) -m pyright

imports: setup ## Check that every room imports only from the floors below it (import-linter)
	@.venv/$(BIN)/lint-imports --no-cache

check: lint types imports test ## All of the above, as .ci/run does

format: setup ## Write the code the way ruff wants it
	@$(PYTHON) -m ruff format $(CODE)
	@$(PYTHON) -m ruff check --fix $(CODE)

clean: ## Remove .venv and every cache in this folder; models and runs stay where they are
	@rm -rf .venv build dist *.egg-info .pytest_cache .ruff_cache .hypothesis .import_linter_cache
	@find $(CODE) -name __pycache__ -type d -prune -exec rm -rf {} +
