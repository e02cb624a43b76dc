# Everything that a person or CI does here. `make` lists it.
SHELL := /bin/bash
.DEFAULT_GOAL := help
DEMO := target/demo
TROUPE := target/debug/troupe
EXAMPLE := examples/incident-triage
UP := target/up/env
FINISHED ?= 0

help: ## List the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-10s %s\n", $$1, $$2}'

demo: ## Analyse a log of 23,000 lines with a team of agents, from nothing
	cargo build --locked -p troupe -p incident-triage
	@mkdir -p $(DEMO)
	target/debug/generate-log $(DEMO)
	@# On the server that is up (make up, troupe dev), else in its own process.
	[ ! -e $(UP) ] || . $(UP); TROUPE__DATA=$(DEMO)/data \
	  $(TROUPE) run $(EXAMPLE)/workflow.yaml --input @$(DEMO)/input.json --follow --approve-as role:incident-manager --print /report > $(DEMO)/report.md
	@echo; cat $(DEMO)/report.md; echo
	target/debug/check-report $(DEMO)/faults.json $(DEMO)/report.md
	@echo
	@echo "The report is $(DEMO)/report.md. Where to look next:"
	@[ -e $(UP) ] || echo "  $(TROUPE) dev --data $(DEMO)/data     all services in one process, with what the demo left"
	@echo "  $(TROUPE) runs list                   then runs show, checkpoints list, agents list"
	@echo "  README.md                             a tour of five minutes"

dev: ## Run all services in one process
	cargo run --locked -p troupe -- dev

up: ## Run the services as separate processes over PostgreSQL and Redis (REPLICAS=2 PROFILE=debug)
	scripts/up.sh

down: ## Stop them
	scripts/up.sh down

build: ## Build everything
	cargo build --locked --workspace --all-targets

test: ## Run all tests
	scripts/test.sh

lint: ## Check format, lints, sizes, licences and protos
	scripts/lint.sh

fmt: ## Format the code
	cargo fmt --all

bench: ## Measure one process and the separate services side by side (FINISHED=1000000: again with so many ended runs kept)
	cargo bench --locked -p troupe-engine --bench apply
	scripts/bench.sh --finished $(FINISHED)

chaos: ## Kill, pause, cut off and fill up everything under load, and check: SEED=1 MINUTES=2
	scripts/services.sh install
	cargo build --locked -p troupe -p troupe-chaos
	target/debug/troupe-chaos --seed $(or $(SEED),1) --minutes $(or $(MINUTES),2) $(CHAOS)

clean-demo: ## Forget what the demo left
	rm -rf $(DEMO)

.PHONY: help demo dev up down build test lint fmt bench chaos clean-demo
