# Everything a developer does. Nothing but Python 3.11+ is needed; what else is used comes into .venv.
#   make test ARGS='-k retry'    only some tests
#   make test ARGS='-n 0 --pdb'  all in one process, as a debugger needs it
#   make venv PYTHON=python3.12  another interpreter than the newest

VENV := .venv
STAMP := $(VENV)/.complete
BENCH_STAMP := $(VENV)/.complete-bench
export PATH := $(CURDIR)/$(VENV)/bin:$(PATH)
export PYTHON

.DEFAULT_GOAL := help
.PHONY: help venv demo test bench bench-full check lint format stubs constraints containers clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

venv: $(STAMP) ## set up .venv with exactly the versions in constraints.txt

$(STAMP): constraints.txt pyproject.toml tools/create_venv.sh
	@tools/create_venv.sh $(VENV)
	@touch $@

demo: $(STAMP) ## see a step fail, be retried by the broker's decision, and end dead
	@reprise demo

test: $(STAMP) ## run every test on the PostgreSQL of the wheel (REPRISE_TEST_POSTGRES=system: on the system's)
	python -m pytest -n logical --maxprocesses 4 --dist worksteal $(ARGS)

bench: $(BENCH_STAMP) ## measure throughput and latency against raw SQL in under 5 minutes; prints tables, writes bench/results/
	@python -m bench $(ARGS)

bench-full: $(BENCH_STAMP) ## measure everything, peers too, in under 90 minutes (ARGS='--only NAME': one scenario)
	@python -m bench --full $(ARGS)

$(BENCH_STAMP): $(STAMP)
	@python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --no-build-isolation --editable '.[dev,bench]'
	@touch $@

check: lint test ## everything that must pass before a commit: lint and test

lint: $(STAMP) ## format, style, imports, types, freshness of the stubs, and the contract's style
	ruff format --check .
	ruff check .
	lint-imports
	mypy
	tools/check_stubs.sh
	buf lint

format: $(STAMP) ## put every file into its form
	ruff check --fix .
	ruff format .

stubs: $(STAMP) ## write the Python stubs of proto/ anew
	python tools/generate_stubs.py

constraints: $(STAMP) ## write constraints.txt anew from .venv, after an upgrade there
	@{ grep '^#' constraints.txt; python -m pip freeze --all --exclude-editable --exclude pip; } > constraints.new
	@mv constraints.new constraints.txt

containers: $(STAMP) ## run the image and the compose file end to end (ENGINE=podman, COMPOSE=podman-compose)
	@tools/run_containers.sh

clean: ## remove .venv and whatever tools have cached; data and logs stay
	rm -rf $(VENV) build dist .mypy_cache .pytest_cache .ruff_cache .hypothesis .import_linter_cache
	find broker worker tests tools proto -name __pycache__ -type d -prune -exec rm -rf {} +
