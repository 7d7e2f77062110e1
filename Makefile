# Every command of the project. `make` alone lists them.
SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.ONESHELL:
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory --no-builtin-rules

DEV := .venv/bin
CLOUD := .venv-cloud/bin
SAM := .venv-sam/bin/sam
export SAM_CLI_TELEMETRY := 0
export PIP_DISABLE_PIP_VERSION_CHECK := 1
export PYTHONUTF8 := 1

# quiet(name, command): one line that says what is done; the command's own words go to a log, shown when it fails.
define quiet
	mkdir -p .local/log
	if ! ( $(2) ) > .local/log/$(1).log 2>&1; then
		echo "  failed: the end of .local/log/$(1).log says" >&2; tail -n 25 .local/log/$(1).log >&2; exit 1
	fi
endef

.PHONY: help
help: ## This list
	@grep -hE '^[a-z][a-z0-9-]*:.*## ' $(MAKEFILE_LIST) | sort -u | awk -F ':.*## ' '{printf "  make %-14s %s\n", $$1, $$2}'

# ---- What the commands stand on ---------------------------------------------------------------------------------

.PHONY: setup
setup: ## Make the three virtual environments (the project, the local cloud, the SAM CLI)
	@$(MAKE) -j3 .venv/ready .venv-cloud/ready .venv-sam/ready

.local/python: .python-version
	@mkdir -p .local
	for python in python3.13 "$$HOME"/.pyenv/versions/3.13*/bin/python3.13 "$$(uv python find 3.13 2>/dev/null || true)" python3; do
		if "$$python" -c 'import sys, venv; assert sys.version_info[:2] == (3, 13)' 2>/dev/null; then
			"$$python" -c 'import sys; print(sys.executable)' > $@; exit 0
		fi
	done
	echo "Python 3.13 is missing: install it (pyenv install 3.13, uv python install 3.13) so that python3.13 is on the PATH" >&2; exit 1

define venv
	@echo "Installing $(1) ($(2))"
	$(call quiet,$(notdir $(patsubst %/,%,$(dir $@))),rm -rf $(@D); "$$(cat .local/python)" -m venv $(@D) && $(@D)/bin/pip install --require-hashes -r $<)
	touch $@
endef

.venv/ready: requirements/dev.txt .local/python
	$(call venv,the project's packages and tools,.venv)

.venv-cloud/ready: requirements/cloud.txt .local/python
	$(call venv,the local cloud,.venv-cloud)

.venv-sam/ready: requirements/sam.txt .local/python
	$(call venv,the SAM CLI,.venv-sam)

# ---- Checks -----------------------------------------------------------------------------------------------------

.PHONY: lint
lint: .venv/ready ## Ruff, the formatter's check and the imports' direction
	@echo "Linting"
	$(DEV)/ruff check --quiet .
	$(DEV)/ruff format --quiet --check .
	PYTHONPATH=shared $(DEV)/lint-imports --no-logo > .local/log/lint-imports.log || { cat .local/log/lint-imports.log; exit 1; }

.PHONY: types
types: .venv/ready ## mypy --strict
	@echo "Checking types"
	$(DEV)/mypy

.PHONY: unit
unit: .venv/ready ## Unit tests: in process, no sockets
	@echo "Running the unit tests"
	$(DEV)/pytest -q -n 2 tests/unit

# ---- Upkeep -----------------------------------------------------------------------------------------------------

.PHONY: compile
compile: .local/python ## Pin requirements/*.in anew, with hashes (UPGRADE=1 for the newest versions)
	@test -x .venv-compile/bin/pip-compile || { "$$(cat .local/python)" -m venv .venv-compile && .venv-compile/bin/pip install -q 'pip-tools==7.6.2' 2>/dev/null; }
	export CUSTOM_COMPILE_COMMAND="make compile"
	cd requirements
	compile() {
		echo "Compiling $$1"
		../.venv-compile/bin/pip-compile -q $(if $(UPGRADE),--upgrade) --generate-hashes --no-emit-index-url --no-emit-find-links --no-emit-trusted-host \
			--strip-extras "$${@:3}" -o "$$2" "$$1" 2> >(grep -v WARNING >&2)
	}
	for set in dev cloud sam; do compile $$set.in $$set.txt --allow-unsafe; done
	compile layer.in ../shared/requirements.txt -c dev.txt
	compile media.in ../functions/media/requirements.txt -c dev.txt
	compile emails.in ../functions/emails/requirements.txt -c dev.txt

.PHONY: clean
clean: ## Remove what was built (virtual environments and sample media stay)
	@rm -rf .aws-sam .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -not -path './.venv*' -prune -exec rm -rf {} +
