# Every command of the project. `make` alone lists them.
SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.ONESHELL:
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory --no-builtin-rules

DEV := .venv/bin
CLOUD := PYTHONPATH=shared $(DEV)/python -m dev.local_cloud
POSTGRES := PYTHONPATH=shared $(DEV)/python -m dev.postgres

# environment(command): runs what the command prints. It ends the recipe if the command fails, as `eval "$(...)"` does not:
# without the local cloud's variables, SAM would deploy to AWS with the user's own credentials.
environment = exports="$$($(1) env)"; eval "$$exports"
export NEXUS_CLOUD_FOLDER ?= cloud
export SAM_CLI_TELEMETRY := 0
export PIP_DISABLE_PIP_VERSION_CHECK := 1
export PYTHONUTF8 := 1

# A virtual environment works only where it was made, with the Python that made it: in a copy of the checkout, `nexus`
# would run the original's code.
ifneq ($(shell grep -s '^command = ' .venv/pyvenv.cfg | grep -vF ' $(CURDIR)/.venv' || test -e .venv/bin/python || test ! -L .venv/bin/python || echo gone),)
$(error .venv was made in another folder, or by a Python that is gone. To set it up here: rm -rf .venv* .local/python, then run this again)
endif

ENV ?= local
# SAM leaves empty folders among its temporary files, so they go to .local/tmp, which is deleted after a deployment.
SAM := mkdir -p .local/tmp && TMPDIR="$(CURDIR)/.local/tmp" PATH="$(CURDIR)/.venv-sam/bin:$$PATH" .venv-sam/bin/sam

# A lock for files that two makes in one folder would both write.
IN_TURN := $(if $(shell command -v flock),flock .local/turn,)

# quiet(name, command): the command's output goes to a log; shows its progress, and the log's end if it fails.
define quiet
	"$$(cat .local/python)" dev/progress.py .local/log/$(1).log bash -euo pipefail -c '$(2)'
endef

.PHONY: help
help: ## List these commands
	@grep -hE '^[a-z][a-z0-9%-]*:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-17s %s\n", $$1, $$2}'

# ---- See it run --------------------------------------------------------------------------------------------------

.PHONY: run
run: up ## Start the local cloud, deploy, upload the sample media and show the results
	@$(call environment,$(CLOUD))
	PYTHONPATH=shared $(DEV)/python -m dev.demo

.PHONY: up
up: setup ## Start the local cloud and deploy what has changed to it
	@$(CLOUD) start
	$(IN_TURN) $(MAKE) -s .local/$(NEXUS_CLOUD_FOLDER)/deployed

.PHONY: web
web: up ## Serve the deployment's pages, `nexus web`, for the local cloud
	@$(call environment,$(CLOUD))
	$(DEV)/nexus web

.PHONY: example
example: up ## Serve the example application on http://localhost:8000, on the local cloud
	@if ! $(DEV)/python -c 'import socket; socket.create_server(("localhost", 8000))' 2> /dev/null; then
		echo "Another program has port 8000: end it and run this again. Another port does not work: the upload bucket accepts" >&2
		echo "uploads only from pages of http://localhost:8000 (BaseUrl in samconfig.toml)." >&2; exit 1
	fi
	$(call environment,$(CLOUD))
	PYTHONPATH=shared $(DEV)/flask --app examples.photo_wall.app run --host localhost --port 8000

.PHONY: example-own-tasks
example-own-tasks: up ## Deploy an example application with its own tasks to the local cloud, beside the network
	@$(IN_TURN) $(MAKE) -s .local/$(NEXUS_CLOUD_FOLDER)/own-tasks

OWN := examples/own_tasks
OWN_CONFIG := --config-env local --config-file "$(CURDIR)/$(OWN)/samconfig.toml"
OWN_ARCHITECTURE := Architecture=$(subst aarch64,arm64,$(shell uname -m))
.local/$(NEXUS_CLOUD_FOLDER)/own-tasks: .local/$(NEXUS_CLOUD_FOLDER)/deployed $(OWN)/template.yaml $(wildcard $(OWN)/functions/own_tasks/*.py)
	@echo "Deploying $(OWN) to the local cloud"
	$(call environment,$(CLOUD))
	$(call quiet,own-tasks,$(SAM) build $(OWN_CONFIG) --template $(OWN)/template.yaml --build-dir .aws-sam/own-tasks --parameter-overrides $(OWN_ARCHITECTURE) \
		&& $(SAM) deploy $(OWN_CONFIG) --template-file .aws-sam/own-tasks/template.yaml --parameter-overrides Stage=local $(OWN_ARCHITECTURE))
	rm -rf .local/tmp
	touch $@

DJANGO := examples/django
DJANGO_CONFIG := --config-env local --config-file "$(CURDIR)/$(DJANGO)/samconfig.toml"
.PHONY: django-network
django-network: up .local/postgresql # Deploy the Django example beside the network, with its own PostgreSQL
	@$(POSTGRES) start
	$(IN_TURN) $(MAKE) -s .local/$(NEXUS_CLOUD_FOLDER)/django-network

.local/$(NEXUS_CLOUD_FOLDER)/django-network: .local/$(NEXUS_CLOUD_FOLDER)/deployed .local/$(NEXUS_CLOUD_FOLDER)/postgres.json $(DJANGO)/template.yaml $(DJANGO)/requirements.txt $(wildcard $(DJANGO)/*/*.py)
	@echo "Deploying $(DJANGO) to the local cloud"
	$(call environment,$(CLOUD)); $(call environment,$(POSTGRES))
	cd $(DJANGO) && SOCIAL_STACK=$$NEXUS_STACK PYTHONPATH=../../shared ../../$(DEV)/python manage.py migrate --verbosity 0 && cd ../..
	$(call quiet,django-network,$(SAM) build $(DJANGO_CONFIG) --template $(DJANGO)/template.yaml --build-dir .aws-sam/django-network --parameter-overrides $(OWN_ARCHITECTURE) \
		&& $(SAM) deploy $(DJANGO_CONFIG) --template-file .aws-sam/django-network/template.yaml --parameter-overrides Stage=local $(OWN_ARCHITECTURE) \
		DatabaseHost=$$DATABASE_HOST DatabasePort=$$DATABASE_PORT SocialStack=$$NEXUS_STACK)
	rm -rf .local/tmp
	touch $@

.PHONY: example-django
example-django: django-network ## Serve a Django project whose @task functions run on the local cloud, on http://localhost:8001
	@$(call environment,$(CLOUD)); $(call environment,$(POSTGRES))
	cd $(DJANGO) && SOCIAL_STACK=$$NEXUS_STACK DJANGO_DEBUG=1 PYTHONPATH=../../shared ../../$(DEV)/python manage.py runserver 127.0.0.1:8001

.PHONY: stop
stop: ## Stop the local cloud and the example's PostgreSQL, and delete their data
	@test ! -x $(DEV)/python || { $(CLOUD) stop; $(POSTGRES) stop; }

.PHONY: invoke
invoke: ## Run one task in a Lambda container: TASK=process_media_upload [EVENT=events/x.json]
	@test -n '$(TASK)' || { echo "Which task? make invoke TASK=process_media_upload" >&2; exit 2; }
	$(MAKE) up
	PYTHONPATH=shared $(DEV)/python -m dev.invoke '$(TASK)' $(if $(EVENT),'$(EVENT)')

# ---- Prerequisites of the commands ---------------------------------------------------------------------------------

.PHONY: setup
setup: ## Create the virtual environments of the project, the local cloud and the SAM CLI
	@mkdir -p .local
	$(IN_TURN) $(MAKE) -s -j3 .venv/ready .venv-cloud/ready .venv-sam/ready

.local/python: .python-version
	@mkdir -p .local
	for python in python3.13 "$$HOME"/.pyenv/versions/3.13*/bin/python3.13 "$$(uv python find 3.13 2>/dev/null || true)" python3; do
		if "$$python" -c 'import sys; assert sys.version_info[:2] == (3, 13)' 2> /dev/null; then
			"$$python" -c 'import ensurepip, venv' 2> /dev/null || { without="$$python"; continue; }
			"$$python" -c 'import sys; print(sys.executable)' > $@; exit 0
		fi
	done
	test -z "$${without:-}" || { echo "$$without cannot create virtual environments: install python3.13-venv, or another Python 3.13" >&2; exit 1; }
	echo "Python 3.13 is missing: install it (pyenv install 3.13, or uv python install 3.13)" >&2; exit 1

# An interrupted first installation may have left half a pip: without the file `ready`, it starts again from nothing.
define venv
	@echo "Installing $(1) into $(@D)"
	$(call quiet,$(@D),"$$(cat .local/python)" -m venv $(if $(wildcard $@),,--clear) $(@D) && $(@D)/bin/pip install --require-hashes -r $<)
	touch $@
endef

.venv/ready: requirements/dev.txt dev/install.py | .local/python
	$(call venv,the project's packages and tools)
	$(DEV)/python dev/install.py

# The older of the two versions of Django that nexus.django supports. The newer one is in .venv.
.local/django-6.0/ready: requirements/django-6.0.txt .venv/ready
	@echo "Installing Django 6.0"
	rm -rf $(@D)
	$(call quiet,django-6.0,$(DEV)/pip install --require-hashes --no-deps --target $(@D) -r $<)
	touch $@

.venv-cloud/ready: requirements/cloud.txt | .local/python
	$(call venv,the local cloud)

.venv-sam/ready: requirements/sam.txt | .local/python
	$(call venv,the SAM CLI)

.venv-check/ready: requirements/check.txt | .local/python
	$(call venv,the checks of templates and workflows)

.venv-mutation/ready: requirements/mutation.txt | .local/python
	$(call venv,the mutation tester)

.venv-second/ready: requirements/second.txt | .local/python
	$(call venv,the second emulator)

.venv-bench/ready: requirements/bench.txt | .local/python
	$(call venv,the peers of the measurements)

.local/redis: | .local/python
	@if ! command -v redis-server > /dev/null; then
		command -v apt-get > /dev/null && test "$$(id -u)" = 0 || { echo "bench-runtime needs Redis: install it (redis-server) and run this again" >&2; exit 1; }
		echo "Installing Redis"
		$(call quiet,redis,apt-get update && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends redis-server)
	fi
	touch $@

.local/bench-node/ready:
	@command -v npm > /dev/null || { echo "bench-media compares with sharp too, and needs Node 20 and npm: install them and run this again" >&2; exit 1; }
	echo "Installing sharp"
	mkdir -p $(@D)
	$(call quiet,sharp,npm install --prefix $(@D) --no-package-lock --no-audit --no-fund sharp@0.35.5 blurhash@2.0.5)
	touch $@

# Installs npm if it is missing; $(1) says what needs it.
define npm
	@if ! command -v npm > /dev/null; then
		command -v apt-get > /dev/null && test "$$(id -u)" = 0 || { echo "$(1), and npm to install it: install Node with npm and run this again" >&2; exit 1; }
		echo "Installing npm"
		$(call quiet,npm,apt-get update && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends npm)
	fi
endef

# Users may check their projects with pyright as well as mypy, so the tests run both.
.local/pyright/ready:
	$(call npm,The tests need pyright)
	echo "Installing pyright"
	mkdir -p $(@D)
	$(call quiet,pyright,npm install --prefix $(@D) --no-package-lock --no-audit --no-fund pyright@1.1.414)
	touch $@

# The outbox is tested on PostgreSQL: its server, and libpq for the driver.
.local/postgresql: | .local/python
	@if ! compgen -G '/usr/lib/postgresql/*/bin/initdb' > /dev/null && ! command -v postgres > /dev/null; then
		command -v apt-get > /dev/null && test "$$(id -u)" = 0 || { echo "The tests need PostgreSQL: install it (postgresql) and run this again" >&2; exit 1; }
		echo "Installing PostgreSQL"
		$(call quiet,postgresql,apt-get update && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends postgresql)
	fi
	touch $@

# Chromium takes the screenshot of the web monitor in its test.
.local/chromium: | .local/python
	@if ! command -v chromium chromium-browser google-chrome > /dev/null; then
		command -v apt-get > /dev/null && test "$$(id -u)" = 0 || { echo "The tests need Chromium: install it (chromium) and run this again" >&2; exit 1; }
		echo "Installing Chromium"
		$(call quiet,chromium,apt-get update && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends chromium)
	fi
	touch $@

# The mails are scored by SpamAssassin's own rules, offline, and tested for accessibility by axe.
.local/spamassassin: | .local/python
	@if ! command -v spamassassin > /dev/null; then
		command -v apt-get > /dev/null && test "$$(id -u)" = 0 || { echo "The tests need SpamAssassin: install it (spamassassin) and run this again" >&2; exit 1; }
		echo "Installing SpamAssassin"
		$(call quiet,spamassassin,apt-get update && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends spamassassin)
	fi
	touch $@

.local/moved_clock.so: tests/support/moved_clock.c | .local/python
	@if ! command -v cc > /dev/null; then
		command -v apt-get > /dev/null && test "$$(id -u)" = 0 || { echo "odd-times needs a C compiler: install it (gcc) and run this again" >&2; exit 1; }
		echo "Installing a C compiler"
		$(call quiet,gcc,apt-get update && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends gcc libc6-dev)
	fi
	cc -Wall -Wextra -Werror -shared -fPIC -O2 -o $@ $<

.local/axe/ready:
	$(call npm,The tests need axe-core)
	echo "Installing axe"
	mkdir -p $(@D)
	$(call quiet,axe,npm install --prefix $(@D) --no-package-lock --no-audit --no-fund axe-core@4.14.1)
	touch $@

# The docs site draws its diagrams with it, from its own host.
.local/mermaid/ready:
	$(call npm,The docs site needs mermaid)
	echo "Installing mermaid"
	mkdir -p $(@D)/site/mermaid/chunks
	$(call quiet,mermaid,cd $(@D) && npm pack --silent mermaid@12.3.0 && tar xzf mermaid-12.3.0.tgz)
	cp $(@D)/package/dist/mermaid.esm.min.mjs $(@D)/site/mermaid
	cp -r $(@D)/package/dist/chunks/mermaid.esm.min $(@D)/site/mermaid/chunks
	rm -rf $(@D)/package $(@D)/*.tgz $(@D)/site/mermaid/chunks/*/*.map
	touch $@

# ---- Build and deploy ----------------------------------------------------------------------------------------------

SOURCES := $(shell find functions shared/nexus shared/social shared/requirements.txt -type f -not -path '*/__pycache__/*' -not -name '*.pyc' -not -name '.*' -not -name '*~' 2> /dev/null)

# `sam build` calls this for each function and the layer: compiled, and cut to what is used.
build-%:
	@PYTHONPATH=shared "$(or $(wildcard $(DEV)/python),python3.13)" -m dev.build '$*' "$(ARTIFACTS_DIR)"

.PHONY: build
build: .aws-sam/local/finished ## Build the functions and the layer for this machine's local cloud

LOCAL_ARCHITECTURE := $(if $(filter arm64 aarch64,$(shell uname -m)),arm64,x86_64)

# A source that was deleted or renamed makes no file newer, so the list of their names is a file too.
.PHONY: always
.aws-sam/sources: always
	@mkdir -p $(@D)
	echo '$(sort $(SOURCES))' | cmp -s - $@ || echo '$(sort $(SOURCES))' > $@

.aws-sam/local/finished: template.yaml dev/build.py $(SOURCES) .aws-sam/sources samconfig.toml | .venv/ready .venv-sam/ready
	@echo "Building the functions and the layer"
	export NEXUS_ARCHITECTURE=$(LOCAL_ARCHITECTURE)
	$(call quiet,build,$(SAM) build --config-env local --build-dir .aws-sam/local)
	touch $@

# Starting the cloud removes this file: a new cloud is empty. Changes that CloudFormation refuses to make in place (a
# table's keys) fail here too. The local cloud has no data to keep, so the second try uses an empty one.
.local/$(NEXUS_CLOUD_FOLDER)/deployed: .aws-sam/local/finished dev/emulator_stack.yaml dev/emulator_stack.py
	@echo "Deploying to the local cloud"
	$(call environment,$(CLOUD))
	deploy() {
		$(SAM) deploy --config-env local --config-file "$(CURDIR)/samconfig.toml" --template-file .aws-sam/local/template.yaml \
			&& PYTHONPATH=shared $(DEV)/python -m dev.emulator_stack
	}
	export -f deploy
	if ! $(call quiet,deploy,deploy); then
		echo "  The existing stack cannot be updated with this change (.local/log/deploy.log): deploying to an empty cloud"
		$(CLOUD) stop; $(CLOUD) start
		$(call environment,$(CLOUD))
		$(call quiet,deploy,deploy)
	fi
	rm -rf .local/tmp
	touch $@

.PHONY: which-environment
which-environment:
	@case '$(ENV)' in dev|prod) ;; *) echo "Which environment? ENV=dev or ENV=prod" >&2; exit 2 ;; esac

.PHONY: package
package: which-environment .venv/ready .venv-sam/ready ## Build for AWS, as `make deploy` does: ENV=dev|prod
	@echo "Building for $(ENV)"
	$(call quiet,build-$(ENV),$(SAM) build --config-env $(ENV))

.PHONY: deploy
deploy: package ## Build and deploy to AWS with your own credentials, and delete old versions: ENV=dev|prod
	@options="$$(PYTHONPATH=shared $(DEV)/python -m dev.deploy $(ENV))"
	$(SAM) deploy --config-env $(ENV) $$options $(OPTIONS)
	PYTHONPATH=shared $(DEV)/python -m dev.deploy $(ENV) --protect
	stack="$$(PYTHONPATH=shared $(DEV)/python -m dev.deploy $(ENV) --stack)"
	region="$$(PYTHONPATH=shared $(DEV)/python -m dev.deploy $(ENV) --region)"
	$(DEV)/nexus --stack "$$stack" --region "$$region" versions --prune > /dev/null

# ---- Checks ----------------------------------------------------------------------------------------------------------

# Property-based tests try the same examples each time; `make unit SEED=7` tries others. Tests are shuffled into the same
# order each time; `make unit ORDER=7` is another order, and the weekly workflow uses a random one. Tests of a deployed
# stack run in the order of their files: they share the stack and its data, and deploying it for each test would take hours.
# Tests with the markers `simulation` and `programs` are beside the unit tests of the same code, but run in those two stages.
ORDER ?= 1
PYTEST := $(DEV)/pytest -q -p no:cacheprovider --hypothesis-seed=$(or $(SEED),0)
SHUFFLED := $(PYTEST) -p pytest_randomly --randomly-seed=$(ORDER)
IN_PROCESS := -m "not simulation and not programs"
OUR_UNITS := tests/unit tests/security --ignore tests/unit/runtime --ignore tests/security/cloud
OLDER_DJANGO := PYTHONPATH="$(CURDIR)/.local/django-6.0"

.PHONY: test
test: setup .local/django-6.0/ready .local/chromium .local/spamassassin .local/axe/ready .local/postgresql ## Lint, types, unit tests, tests with programs, simulation, integration and end-to-end tests, on a separate local cloud
	@export NEXUS_CLOUD_FOLDER=test-cloud NEXUS_CLOUD_PORT= NEXUS_RIGHTS="$(CURDIR)/.local/rights"
	export NEXUS_REQUESTS="$$NEXUS_RIGHTS/requests.jsonl"
	rm -rf "$$NEXUS_RIGHTS" .local/coverage && mkdir -p "$$NEXUS_RIGHTS"
	$(MAKE) -s stop > /dev/null # a local cloud that a killed run has left records nothing for the last two checks
	trap '$(MAKE) -s stop > /dev/null' EXIT
	for check in lint types; do $(MAKE) $$check; done
	export NEXUS_COVERAGE="$(CURDIR)"
	echo "Running the integration and end-to-end tests beside the others (.local/log/deployed.log)"
	set -m # gives them a process group, which can be ended as a whole
	$(MAKE) integration e2e > .local/log/deployed.log 2>&1 &
	deployed=$$!
	set +m
	trap 'kill -- -$$deployed 2> /dev/null || true; $(MAKE) -s stop > /dev/null' EXIT
	for check in unit programs simulation; do $(MAKE) $$check; done
	wait $$deployed || { cat .local/log/deployed.log; exit 1; }
	cat .local/log/deployed.log
	$(MAKE) rights
	NEXUS_COVERAGE= $(MAKE) coverage

.PHONY: lint
lint: .venv/ready .venv-sam/ready .venv-check/ready docs ## Lint: code, formatting, imports, requirements, English, docs site, templates, workflows
	@echo "Linting"
	mkdir -p .local/log
	$(DEV)/ruff check --quiet .
	$(DEV)/ruff format --check --quiet . || { echo "Not as ruff formats it: \`make format\` fixes this" >&2; exit 1; }
	PYTHONPATH=shared $(DEV)/lint-imports --no-logo > .local/log/lint-imports.log || { cat .local/log/lint-imports.log; exit 1; }
	$(DEV)/deptry --config requirements/deptry.toml . shared functions/*/ $(OWN)/functions > .local/log/deptry.log 2>&1 || { cat .local/log/deptry.log; exit 1; }
	$(DEV)/codespell $$(git ls-files)
	PYTHONPATH=shared $(DEV)/python -m dev.prose
	$(MAKE) -s templates > .local/log/templates.log 2>&1 || { cat .local/log/templates.log; exit 1; }

.PHONY: templates
templates: .venv-sam/ready .venv-check/ready # Part of lint
	@$(SAM) validate --region eu-west-1
	.venv-check/bin/cfn-lint template.yaml ops/*.yaml $(OWN)/template.yaml
	for template in template.yaml ops/*.yaml; do
		.venv-check/bin/checkov -f $$template --framework cloudformation --compact --quiet --skip-download
	done
	.venv-check/bin/check-jsonschema -q --builtin-schema vendor.github-workflows .github/workflows/*.yml
	.venv-check/bin/zizmor -q --offline --min-severity medium .github/workflows

.PHONY: docs
docs: .venv/ready .local/mermaid/ready ## Build the docs site into .local/site, and check its links
	@echo "Building the docs site"
	PYTHONPATH=shared $(DEV)/python -m dev.site .local/site

# Needs the network, so it is not part of `make test`; the workflow `audit` runs it weekly. If the advisories cannot be
# reached, as behind a mirror of the registry, it only checks for releases that their authors have withdrawn.
.PHONY: audit
audit: .venv-check/ready ## Check the pinned packages for known vulnerabilities
	@mkdir -p .local/log
	for file in shared/requirements.txt functions/*/requirements.txt requirements/dev.txt requirements/sam.txt; do
		echo "Auditing $$file"
		.venv-check/bin/pip-audit --progress-spinner off --disable-pip --require-hashes --strict -r $$file > .local/log/audit.log 2>&1 && continue
		grep -qE "could not be audited|Connection" .local/log/audit.log || { cat .local/log/audit.log; exit 1; }
		echo "   advisories cannot be reached from here: checking only for withdrawn releases"
		.venv-check/bin/pip install --dry-run --ignore-installed --no-deps --require-hashes -r $$file > .local/log/audit.log 2>&1
		! grep -i yanked .local/log/audit.log
	done

.PHONY: types
types: .venv/ready .local/pyright/ready ## Check types: mypy --strict, and mypy and pyright on a sample application
	@echo "Checking types"
	$(DEV)/mypy
	$(DEV)/mypy --python-version 3.12 shared/nexus shared/social ops # what a web application imports
	$(PYTEST) tests/types

.PHONY: unit
unit: .venv/ready .local/django-6.0/ready ## Unit tests: in process, without sockets, AWS mocked by moto; two minutes on two cores
	@echo "Running the unit tests (ORDER=$(ORDER))"
	$(SHUFFLED) -n 2 $(IN_PROCESS) --durations 10 $(OUR_UNITS)
	$(SHUFFLED) -n 2 $(IN_PROCESS) --durations 10 -p tests.support.without_social tests/unit/runtime
	$(SHUFFLED) -p nexus.pytest examples/photo_wall
	$(OLDER_DJANGO) $(SHUFFLED) -n 2 $(IN_PROCESS) tests/unit/django_backend

.PHONY: odd-times
odd-times: .venv/ready .local/moved_clock.so ## Tests of code that depends on time: at midnight, on leap day, at New Year, in other time zones
	@case "$(CURDIR)" in *" "*) echo "odd-times needs a checkout in a path without spaces: LD_PRELOAD allows none" >&2; exit 2 ;; esac
	at() {
		echo "Running the tests of code that depends on time at $$2 in $$1 (ORDER=$(ORDER))"
		moved() {
			TZ=$$zone MOVED_SECONDS=$$(($$(TZ=$$zone date -d "$$moment" +%s) - $$(date +%s))) \
				LD_PRELOAD=$(CURDIR)/.local/moved_clock.so "$$@"
		}
		zone=$$1 moment=$$2
		moved $(SHUFFLED) -n 2 $(IN_PROCESS) tests/unit/jobs tests/unit/emails tests/unit/data tests/unit/ops tests/unit/testkit
		moved $(SHUFFLED) -n 2 $(IN_PROCESS) -p tests.support.without_social tests/unit/runtime
	}
	at UTC "2027-06-15 23:59:30"
	at UTC "2027-04-30 23:59:30"
	at UTC "2028-02-29 12:00:00"
	at UTC "2026-12-31 12:00:00" # Thursday of ISO week 53
	at UTC "2026-12-31 23:59:30"
	at Pacific/Kiritimati "2027-01-01 00:30:00" # 14 hours ahead: still 31 December in UTC
	at America/New_York "2027-11-07 01:30:00" # in the hour that comes twice

.PHONY: programs
programs: .venv/ready .local/django-6.0/ready .local/chromium .local/spamassassin .local/axe/ready .local/postgresql ## Tests that start programs: Chromium, SpamAssassin, PostgreSQL, decoders, sample projects
	@echo "Running the tests with other programs (ORDER=$(ORDER))"
	$(SHUFFLED) -n 2 --dist loadfile tests/programs
	$(SHUFFLED) -n 2 -m programs $(OUR_UNITS)
	$(SHUFFLED) -n 2 -m programs -p tests.support.without_social tests/unit/runtime
	$(OLDER_DJANGO) $(SHUFFLED) -m programs tests/unit/django_backend

.PHONY: simulation
simulation: .venv/ready ## Simulate faults: 50,000 schedules of the runtime (NEXUS_SCHEDULES), small worlds, planted faults, crashes of jobs
	@echo "Simulating the runtime under faults (ORDER=$(ORDER))"
	$(SHUFFLED) -n 2 -p tests.support.without_social tests/simulation
	$(SHUFFLED) -n 2 -m simulation $(OUR_UNITS)

.PHONY: simulate
simulate: .venv/ready ## Simulate a million schedules: SCHEDULES=n, starting at SEED=n
	@PYTHONPATH=shared $(DEV)/python -m tests.simulation.simulate $(or $(SEED),0) --schedules $(or $(SCHEDULES),1000000)

.PHONY: integration
integration: up .local/chromium ## Integration tests against the local cloud
	@echo "Running the integration tests"
	$(call environment,$(CLOUD))
	$(PYTEST) tests/integration

# The tests of the examples' own stacks run beside those of the network's stack, whose tests take turns.
EXAMPLES := tests/e2e/test_django.py tests/e2e/test_own_tasks.py

.PHONY: e2e
e2e: up example-own-tasks django-network .local/chromium .local/axe/ready ## Tests of the deployed stack, from the outside
	@echo "Running the end-to-end tests"
	$(call environment,$(CLOUD))
	mkdir -p .local/log
	$(PYTEST) $(EXAMPLES) > .local/log/e2e-examples.log 2>&1 &
	examples=$$!
	trap 'kill $$examples 2> /dev/null || true' EXIT
	$(PYTEST) tests/e2e tests/security/cloud $(addprefix --ignore ,$(EXAMPLES))
	wait $$examples || { cat .local/log/e2e-examples.log; exit 1; }
	tail -n 1 .local/log/e2e-examples.log

.PHONY: second
second: .venv/ready .venv-sam/ready .venv-second/ready ## Tests of what the local cloud lacks, on a second emulator: message moves, schedules that fire
	@echo "Running the tests of the second emulator"
	$(PYTEST) tests/second

# Without the environment's parameters: a boundary, a key and a sender belong to its own stack, and mail to the tests' users
# would bounce.
.PHONY: e2e-aws
e2e-aws: package ## The end-to-end tests on a real account, in a temporary stack: ENV=dev
	@PYTHONPATH=shared $(DEV)/python -m dev.e2e_aws $(ENV) env TMPDIR="$(CURDIR)/.local/tmp" PATH="$(CURDIR)/.venv-sam/bin:$$PATH" \
		.venv-sam/bin/sam deploy --config-env $(ENV) --no-confirm-changeset --parameter-overrides Stage=dev $(OPTIONS)

.PHONY: mutate
mutate: .venv/ready .venv-mutation/ready ## Mutation tests: change the rules one operator at a time and run their tests; RULE=name for one rule
	@echo "Mutating the rules"
	PYTHONPATH=shared $(DEV)/python -m dev.mutate $(if $(RULE),"$(RULE)")

.PHONY: rights
rights: .venv/ready ## After `make test`: list requests that the roles in template.yaml deny, and rights that no request used
	@echo "Comparing the rights that were used with those that are granted"
	PYTHONPATH=shared $(DEV)/python -m tests.rights .local/rights

.PHONY: coverage
coverage: .venv/ready ## After `make test`: check each package's share of executed lines; ALL=1 lists all lines that were not
	@echo "Comparing the executed lines with the floors"
	$(DEV)/python -m dev.covered $(if $(ALL),--all)

bench-runtime: .venv-bench/ready .local/redis
bench-media: .venv-bench/ready .local/bench-node/ready
bench-coldstart: .aws-sam/local/finished
bench-%: .venv/ready ## Run a benchmark, with OPTIONS, and % one of: runtime, media, coldstart, history, jobs, cost, mail, web, dev
	@PYTHONPATH=shared $(DEV)/python -m bench.$* $(OPTIONS)

# ---- Upkeep ----------------------------------------------------------------------------------------------------------

.PHONY: format
format: .venv/ready ## Let ruff format the code and fix what it can
	@$(DEV)/ruff check --quiet --fix-only . && $(DEV)/ruff format --quiet .

.PHONY: compile
compile: | .local/python ## Pin requirements/*.in with hashes; UPGRADE=1 upgrades to the newest versions
	@test -x .venv-compile/bin/pip-compile || { "$$(cat .local/python)" -m venv .venv-compile && .venv-compile/bin/pip install -q pip-tools==7.6.2; }
	export CUSTOM_COMPILE_COMMAND="make compile"
	cd requirements
	compile() {
		echo "Compiling $$1"
		../.venv-compile/bin/pip-compile -q $(if $(UPGRADE),--upgrade) --generate-hashes --no-emit-index-url --no-emit-find-links --no-emit-trusted-host \
			--strip-extras "$${@:3}" -o "$$2" "$$1" 2> >(grep -v WARNING >&2)
	}
	for set in dev cloud second sam check bench mutation; do compile $$set.in $$set.txt --allow-unsafe; done
	compile layer.in ../shared/requirements.txt -c dev.txt
	compile django-6.0.in django-6.0.txt
	compile django.in ../$(DJANGO)/requirements.txt -c dev.txt
	compile media.in ../functions/media/requirements.txt -c dev.txt
	compile emails.in ../functions/emails/requirements.txt -c dev.txt

.PHONY: clean
clean: stop ## Remove what was built, except the virtual environments and the sample media
	@rm -rf .aws-sam shared/build shared/*.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -not -path './.venv*' -prune -exec rm -rf {} +
