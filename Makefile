# One way to do a thing: the README, the CI and people call these targets.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

BIN := .venv/bin
COMPRESSION_BIN := .venv-compression/bin
CLUSTER := PYTHONPATH=tools $(BIN)/python -m cluster
ROOMS := api store routing evaluation compression serving operator cli
# Tests and tools must never reach for a model hub.
export HF_HUB_OFFLINE := 1
export VLLM_NO_USAGE_STATS := 1
PYTEST_ARGS ?=
BENCH_ARGS ?=
# benchmarks/some_thing.py is run by `make bench-some-thing`.
BENCHES := $(subst _,-,$(patsubst benchmarks/%.py,bench-%,$(wildcard benchmarks/*.py)))

##@ Use it

.PHONY: help
help: ## Show this list
	@awk 'BEGIN {FS = ":.*## "} \
	  /^##@/ {printf "\n%s\n", substr($$0, 5)} \
	  /^[a-z0-9-]+:.*## / {printf "  %-18s %s\n", $$1, $$2}' $(MAKEFILE_LIST)
	@if [ -n "$(BENCHES)" ]; then printf '\nMeasure it\n'; fi
	@for bench in $(BENCHES); do printf '  %s\n' "$$bench"; done

.PHONY: setup
setup: ## Make .venv and .venv-compression (PYTHON=/path/to/python3.11 names the interpreter)
	@python=$$(PYTHON='$(PYTHON)' sh tools/find_python.sh) && "$$python" tools/setup.py

.PHONY: quickstart
quickstart: setup ## Make SmolLM2 lean, prove it, serve both, and print what was won
	$(BIN)/leanmodel up -f examples/quickstart/leanmodel.yaml --detach

##@ Check it

.PHONY: test
test: setup ## What the CI runs first: lint, types, imports, drift, and the tests of all rooms
	@$(BIN)/python tools/run_checks.py lint imports typecheck test-unit test-compression test-serving

.PHONY: lint
lint: setup ## ruff: rules and format
	$(BIN)/ruff check $(ROOMS) tests tools $(wildcard benchmarks)
	$(BIN)/ruff format --check $(ROOMS) tests tools $(wildcard benchmarks)

.PHONY: format
format: setup ## Let ruff put format and simple findings right
	$(BIN)/ruff check --fix $(ROOMS) tests tools $(wildcard benchmarks)
	$(BIN)/ruff format $(ROOMS) tests tools $(wildcard benchmarks)

.PHONY: typecheck
typecheck: setup ## mypy, strict, on all our packages
	$(BIN)/mypy
	MYPYPATH=tools $(BIN)/mypy -p cluster -p chart_files

.PHONY: imports
imports: setup ## import-linter: which room may import which
	$(BIN)/lint-imports

.PHONY: test-unit
test-unit: setup ## Tests without an engine: every room, the house, drift (under .venv)
	$(BIN)/python -m pytest tests/unit --ignore=tests/unit/compression $(PYTEST_ARGS)

.PHONY: test-compression
test-compression: setup ## Tests of the compress Job, kills included (under .venv-compression)
	$(COMPRESSION_BIN)/python -m pytest $(wildcard tests/unit/compression) tests/compression -m 'not long' $(PYTEST_ARGS)

.PHONY: test-serving
test-serving: setup ## Tests with Ray Serve and vLLM running (under .venv)
	$(BIN)/python -m pytest tests/serving -m 'not long' $(PYTEST_ARGS)

.PHONY: test-long
test-long: test-long-compression test-long-serving test-long-e2e ## Tests of techniques, routes and families that take minutes

.PHONY: test-long-compression
test-long-compression: setup ## The long tests of techniques (under .venv-compression)
	$(COMPRESSION_BIN)/python -m pytest tests/compression -m long $(PYTEST_ARGS)

.PHONY: test-long-serving
test-long-serving: setup ## The long tests with Ray Serve and vLLM running (under .venv)
	$(BIN)/python -m pytest tests/serving -m long $(PYTEST_ARGS)

.PHONY: test-e2e
test-e2e: setup ## From a manifest to an answering endpoint, as a user would
	$(BIN)/python -m pytest tests/e2e -m 'not long' $(PYTEST_ARGS)

.PHONY: test-long-e2e
test-long-e2e: setup ## Every family of models from a manifest to an answered request
	$(BIN)/python -m pytest tests/e2e -m long $(PYTEST_ARGS)

.PHONY: test-apiserver
test-apiserver: cluster-servers ## Tests against a real API server; needs Go once (under .venv)
	$(BIN)/python -m pytest tests/apiserver $(PYTEST_ARGS)

.PHONY: test-charts
test-charts: cluster-servers ## Tests of the charts, the dashboard and the alerts; needs Go once, and Prometheus
	$(CLUSTER) build helm prometheus-operator
	$(BIN)/python -m pytest tests/charts $(PYTEST_ARGS)

# An exported KUBECONFIG is not meant: only one that is given to make.
E2E := $(BIN)/python tools/e2e.py $(if $(filter command,$(origin KUBECONFIG)),--kubeconfig '$(KUBECONFIG)') \
  $(if $(IMAGES),--images '$(IMAGES)') $(if $(BASE),--base '$(BASE)')

.PHONY: e2e
e2e: setup ## The operator on a node of ours, or: KUBECONFIG=... IMAGES="OPERATOR COMPRESSOR SERVER"
	$(E2E) -- $(PYTEST_ARGS)

.PHONY: e2e-smoke
e2e-smoke: setup ## From apply to Ready to an answer on a node, once; skipped where no node can be had
	$(E2E) --smoke -- $(PYTEST_ARGS)

##@ A real Kubernetes

.PHONY: cluster-servers
cluster-servers: setup ## Build etcd, kube-apiserver and kube-controller-manager into the cache, once
	$(CLUSTER) build

.PHONY: cluster-up
cluster-up: setup ## Start a real node with KubeRay (root), or find it running
	$(CLUSTER) up

.PHONY: cluster-down
cluster-down: setup ## End the node and undo everything on the host
	$(CLUSTER) down

.PHONY: cluster-images
cluster-images: setup ## Build operator, compressor and server images (root), and bring them into the node
	$(CLUSTER) images $(if $(BASE),--base $(BASE))

.PHONY: cluster-prune
cluster-prune: setup ## Remove programs of older pins and images of older sources from the cache
	$(CLUSTER) prune

.PHONY: $(BENCHES)
$(BENCHES): bench-%: setup
	$(BIN)/python benchmarks/$(subst -,_,$*).py $(BENCH_ARGS)

##@ Generate it

.PHONY: crd
crd: setup ## Write crds/leanmodel.yaml from the pydantic models
	@mkdir -p crds
	$(BIN)/python -m leanmodel_api.crd > crds/leanmodel.yaml.new
	mv crds/leanmodel.yaml.new crds/leanmodel.yaml
	@$(MAKE) charts

.PHONY: charts
charts: setup ## Write what the charts ship that is made from code: definition, rights, settings, dashboard
	PYTHONPATH=tools $(BIN)/python -m chart_files

.PHONY: docs
docs: setup ## Write docs/resource.md from the pydantic models, docs/families.md from the registries
	@mkdir -p docs
	$(BIN)/python -m leanmodel_api.reference > docs/resource.md.new
	mv docs/resource.md.new docs/resource.md
	$(BIN)/python tools/families_table.py > docs/families.md.new
	mv docs/families.md.new docs/families.md

.PHONY: lock
lock: ## Write requirements/*.lock anew (UPGRADE=1 takes newer versions)
	@python=$$(PYTHON='$(PYTHON)' sh tools/find_python.sh) && UPGRADE='$(UPGRADE)' "$$python" tools/setup.py --lock

.PHONY: wheel
wheel: setup ## Build the distribution into dist/
	$(BIN)/python -m hatchling build -t wheel

.PHONY: clean
clean: ## Remove what the checks and the build left; environments and the cache stay
	rm -rf dist build .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis
	find $(ROOMS) tests tools -name __pycache__ -type d -prune -exec rm -rf {} + 2>/dev/null || true

.PHONY: distclean
distclean: clean ## Remove the environments too
	rm -rf .venv .venv-compression
