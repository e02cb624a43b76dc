# Everything that a person or CI does here. `make` lists it.
SHELL := /bin/bash
.DEFAULT_GOAL := help
DEMO := target/demo
TROUPE := target/debug/troupe
EXAMPLE := examples/incident-triage

help: ## List the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-10s %s\n", $$1, $$2}'

demo: ## Analyse a log of 23,000 lines with a team of agents, from nothing
	cargo build --locked -p troupe -p incident-triage
	@mkdir -p $(DEMO)
	target/debug/generate-log $(DEMO)
	$(TROUPE) run $(EXAMPLE)/workflow.yaml --input @$(DEMO)/input.json --data $(DEMO)/data --follow --approve-as role:incident-manager --print /report > $(DEMO)/report.md
	@echo; cat $(DEMO)/report.md; echo
	target/debug/check-report $(DEMO)/faults.json $(DEMO)/report.md
	@echo
	@echo "The report is $(DEMO)/report.md. Where to look next:"
	@echo "  $(TROUPE) dev --data $(DEMO)/data     all services in one process, with what the demo left"
	@echo "  $(TROUPE) runs list                   then runs show, checkpoints list, agents list"
	@echo "  README.md                             a tour of five minutes"

dev: ## Run all services in one process
	cargo run --locked -p troupe -- dev

build: ## Build everything
	cargo build --locked --workspace --all-targets

test: ## Run all tests
	scripts/test.sh

lint: ## Check format, lints, sizes, licences and protos
	scripts/lint.sh

fmt: ## Format the code
	cargo fmt --all

bench: ## Measure: latency, throughput, memory, recovery
	cargo bench --locked -p troupe-engine --bench apply
	cargo run --locked --release -p troupe -- bench

clean-demo: ## Forget what the demo left
	rm -rf $(DEMO)

.PHONY: help demo dev build test lint fmt bench clean-demo
