# Needs Python 3.11 or newer with pip, git and make. Everything else goes into .venv, from the hashed requirements.lock.

SHELL := bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-builtin-rules --no-print-directory

BIN := .venv/bin
STAMP := .venv/.installed
LOG := .venv/install.log

# The first interpreter that is new enough; `make PYTHON=/path/to/python3.12 install` chooses another one.
NEW_ENOUGH := import sys; sys.exit(sys.version_info < (3, 11))
PYTHON ?= $(firstword $(foreach name,python3 python3.14 python3.13 python3.12 python3.11 python,\
	$(shell command -v $(name) >/dev/null 2>&1 && $(name) -c '$(NEW_ENOUGH)' 2>/dev/null && echo $(name))))

# Counts what pip has fetched: in one line of a terminal, else as a dot for each package.
COUNT := awk -v tty="$$(if [ -t 2 ]; then echo 1; fi)" \
	'/^Collecting /{n++; if (tty) printf "\r  %d packages", n; else printf "."; fflush()} \
	/^Installing /{if (tty) printf "\r  %d packages, installing", n; else printf " installing"; fflush()} END{print ""}'

.PHONY: help install demo up test check fast-check bench clean

help: ## show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  make %-11s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

install: $(STAMP) ## build .venv; does nothing when nothing changed

$(STAMP): requirements.lock pyproject.toml
	@if [ -z "$(PYTHON)" ] || ! "$(PYTHON)" -c '$(NEW_ENOUGH)' 2>/dev/null; then \
		echo "InfraSage needs Python 3.11 or newer$(if $(PYTHON),$(,) and $(PYTHON) is none); install it$(,) or name it: make install PYTHON=/path/to/python3.11" >&2; \
		exit 1; \
	fi
	@if ! $(BIN)/python -c '$(NEW_ENOUGH)' 2>/dev/null; then \
		rm -rf .venv; \
		"$(PYTHON)" -m venv --without-pip .venv || { echo "$(PYTHON) cannot make a virtual environment: see above." >&2; exit 1; }; \
	fi
	@echo "Installing the locked packages into .venv …"
	@"$(PYTHON)" -m pip --python $(BIN)/python install --disable-pip-version-check --no-input --progress-bar off \
		--require-hashes --requirement requirements.lock 2>$(LOG).errors | tee $(LOG) | $(COUNT) || { \
		cat $(LOG).errors >&2; echo "The locked packages could not be installed: see above, and $(LOG)." >&2; exit 1; }
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-input --no-deps --no-build-isolation --editable . \
		>>$(LOG) 2>&1 || { cat $(LOG) >&2; exit 1; }
	@touch $(STAMP)
	@echo "Installed: $(BIN)/infrasage"

demo: install ## the whole story on a simulated cluster and Slack; you approve (YES=1: it approves)
	@$(BIN)/infrasage demo $(if $(YES),--yes)

up: install ## keep the embedded stack running on the default ports; Ctrl-C stops it
	@exec $(BIN)/infrasage up

test: install ## the whole test suite, with real servers; Debian's Alertmanager comes through apt where it is missing
	@$(BIN)/python -c 'from tests.peers.alertmanager import find_binary; print("Alertmanager:", find_binary())'
	@$(BIN)/pytest -q

check: fast-check test ## format, lint, types, import rules, then all tests

fast-check: install ## format, lint, types and import rules
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/basedpyright
	@$(BIN)/lint-imports

bench: install ## measure: incidents against a bare workflow, incident memory, the server's settings
	@$(BIN)/python -m bench.incidents
	@$(BIN)/python -m bench.memory_lookup
	@$(BIN)/python -m bench.server_tuning

clean: ## remove .venv and every cache; the data in .infrasage stays
	@rm -rf .venv .pytest_cache .ruff_cache .hypothesis .import_linter_cache build *.egg-info
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +

, := ,
