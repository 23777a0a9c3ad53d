# The commands of this project. They need make and Python 3.11 or newer with venv and ensurepip, and install the rest on
# demand, into .venv only.

STAGE ?= dev
STACK ?= xray-guard
PORT ?= 4566
API_PORT ?= 4567
CONSOLE_PORT ?= 8710
# Not from the command line: what is not a virtual environment there is removed.
override VENV := .venv
PACKAGE := build/$(STAGE)/package
CODE := app.py bench chalicelib sandbox shipping tests

# The first Python on the path that is new enough; PYTHON=... on the command line overrides it.
PYTHON ?= $(shell for name in python3 python3.13 python3.12 python3.11; do \
	$$name -c 'import ensurepip, sys, venv; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$name && break; done)

# "yes" if .venv is a virtual environment with pip, of a Python that is new enough, and its set-up was not interrupted. Debian
# leaves one without pip if ensurepip is missing; in a link to the system's Python, pip would install into the system.
SOUND := $(shell test ! -e $(VENV)/unfinished && $(VENV)/bin/python -I -c 'import pip, sys; \
	sys.exit(sys.prefix == sys.base_prefix or sys.version_info < (3, 11))' 2>/dev/null && echo yes)

SHIPPED := app.py requirements.txt $(wildcard .chalice/*.json policies/*.json shipping/*.py) \
	$(shell find chalicelib -type f -not -name "*.pyc")

.DEFAULT_GOAL := help
.PHONY: help demo test sandbox check package release deploy forward bench bench-history hunt storm planted contract-live setup pins clean

help: ## list the commands
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-13s %s\n", $$1, $$2 }' Makefile

demo: $(VENV)/ready build/dev/package/sam.json ## show every feature on a simulated AWS on this machine, step by step
	@$(VENV)/bin/python -m sandbox.demo

test: $(VENV)/ready build/dev/package/sam.json ## run every test, those of the packaged functions included
	$(VENV)/bin/python -m pytest -n 2

sandbox: $(VENV)/ready build/dev/package/sam.json ## run a simulated AWS with the guard and the console, until Ctrl-C [PORT=4566] [API_PORT=4567] [CONSOLE_PORT=8710]
	@$(VENV)/bin/python -m sandbox --port $(PORT) --api-port $(API_PORT) --console $(CONSOLE_PORT) --package build/dev/package

check: $(VENV)/ready ## check lint, format, types and the direction of imports
	$(VENV)/bin/python -m ruff check .
	$(VENV)/bin/python -m ruff format --check .
	$(VENV)/bin/python -m mypy $(CODE)
	$(VENV)/bin/lint-imports

package: $(PACKAGE)/sam.json ## build the template and the zip to deploy, in build/STAGE/package [STAGE=dev]

release: $(VENV)/ready ## build the wheel, zip, templates, bill of materials and checksums of a release, in build/release
	@$(VENV)/bin/python -m shipping.release

deploy: $(VENV)/ready ## package, print the AWS CLI commands and run them [STAGE=dev] BUCKET= [STACK=] [ALARM_EMAIL=] [ANCHOR_BUCKET=] [RIGHTS=observe] [PIPELINE_ROLE=] [OPERATOR_ROLES=] [FORWARD=no]
	@$(VENV)/bin/python -m shipping.deploying --stage '$(STAGE)' --bucket '$(BUCKET)' --stack '$(STACK)' \
		--alarm-email '$(ALARM_EMAIL)' --anchor-bucket '$(ANCHOR_BUCKET)' --rights '$(RIGHTS)' \
		--pipeline-role '$(PIPELINE_ROLE)' --operator-roles '$(OPERATOR_ROLES)'
	@$(if $(filter no,$(FORWARD)),,$(VENV)/bin/python -m shipping.regions --stage '$(STAGE)' --stack '$(STACK)')

forward: $(PACKAGE)/sam.json ## forward the events of other Regions to the guard; `make deploy` does it, too [STAGE=dev] [STACK=] [REGIONS=name,name]
	@$(VENV)/bin/python -m shipping.regions --stage '$(STAGE)' --stack '$(STACK)' --regions '$(REGIONS)'

bench: $(VENV)/ready build/dev/package/sam.json ## measure cold start and warm cost against a bare boto3 handler, and the waits of people
	@$(VENV)/bin/python -m bench

bench-history: $(VENV)/ready ## measure queries on a log with a million records against a thousand
	@$(VENV)/bin/python -m bench.million

hunt: $(VENV)/ready ## run random schedules against the loop for ten minutes: crashes, stale reads, races, bad delivery
	$(VENV)/bin/python -m tests.simulation.hunt --schedules 20000 --seconds 600

storm: $(VENV)/ready build/dev/package/sam.json ## change everything at once for two minutes while the packaged functions are killed [SECONDS=120]
	@$(VENV)/bin/python -m tests.component.storm --seconds $(or $(SECONDS),120)

planted: $(VENV)/ready ## plant known bugs in copies of the code, and check that a test fails for each [SAMPLE=20] [SEED=text]
	@$(VENV)/bin/python -m tests.planted $(if $(SAMPLE),--sample $(SAMPLE)) $(if $(SEED),--seed $(SEED))

contract-live: $(VENV)/ready ## check the assumptions about AWS on a live account; creates and deletes one key [ACCOUNT=123456789012] [REGION=name]
	@$(VENV)/bin/python -m tests.contract.live --account "$(ACCOUNT)" --region "$(REGION)"

setup: $(VENV)/ready ## set up the virtual environment only

PIN := pip-compile --quiet --generate-hashes --allow-unsafe --strip-extras --no-annotate --no-header \
	--no-emit-index-url --no-emit-find-links --no-emit-options

pins: $(VENV)/ready ## pin the requirements of requirements*.in again; hashes cover every platform and Python
	$(VENV)/bin/$(PIN) --output-file requirements.txt requirements.in
	$(VENV)/bin/$(PIN) --output-file requirements-dev.txt requirements-dev.in

clean: ## remove build results; the virtual environment stays
	rm -rf build .chalice/deployments policies/policy.stamp.json

build/%/package/sam.json: $(SHIPPED) | $(VENV)/ready
	@$(VENV)/bin/python -m shipping $*

ifneq ($(SOUND),yes)
.PHONY: $(VENV)/ready
endif
$(VENV)/ready: requirements-dev.txt
	@test -n "$(PYTHON)" || { echo "This needs Python 3.11 or newer with venv and ensurepip; none was found." \
		"On Debian and Ubuntu: apt install python3-venv. Or name one: make PYTHON=/path/to/python3" >&2; exit 2; }
	@echo "Setting up $(VENV) with $$($(PYTHON) --version): $$(grep -c '==' requirements-dev.txt) pinned packages, checked by hash. Once only."
	@test -n "$(SOUND)" || { rm -rf $(VENV) && $(PYTHON) -m venv $(VENV); }
	@rm -f $@ && touch $(VENV)/unfinished
	$(VENV)/bin/python -m pip install --disable-pip-version-check --require-hashes -r requirements-dev.txt
	$(VENV)/bin/python -m pip install --disable-pip-version-check --no-deps --no-build-isolation --no-index -e .
	@mv $(VENV)/unfinished $@ && touch $@
