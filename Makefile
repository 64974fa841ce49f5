# SPDX-License-Identifier: Apache-2.0
SHELL       := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

VERSION     ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
CLUSTER     ?= default
NODES       ?=
LDFLAGS     := -s -w -X github.com/spotbench/spotbench/pkg/version.release=$(VERSION)
# Without gRPC's traces the linker can leave out methods that nobody calls.
TAGS        := grpcnotrace
GO          ?= go
GOTESTSUM   := gotest.tools/gotestsum@v1.13.0
GOLANGCI    := github.com/golangci/golangci-lint/v2/cmd/golangci-lint@v2.15.0
GOVULNCHECK := golang.org/x/vuln/cmd/govulncheck@v1.9.0
COMMANDS    := scheduler node-agent catalog-api kubectl-spotbench bench-runner sim-llm localcluster gpu-device-plugin images demo
OUT         := _out

export CGO_ENABLED ?= 1

##@ The two commands

.PHONY: demo
demo: tools ## Place, interrupt, checkpoint, restore and file three benchmarks on a real local cluster
	$(OUT)/bin/demo --out $(OUT)/demo.json

.PHONY: test
test: ## Every test: unit, integration and end-to-end on the real local cluster
	bash hack/test.sh

##@ Local cluster

.PHONY: platform-up
platform-up: tools ## Start the local cluster with Spotbench installed and nothing running on it (COMPLETE=1: with PostgreSQL, Redis, monitoring and network policies)
	$(OUT)/bin/demo --install-only $(if $(COMPLETE),--complete)

.PHONY: cluster-up
cluster-up: tools ## Start the local cluster (CLUSTER=name, NODES=shape file)
	$(OUT)/bin/localcluster up --name $(CLUSTER) $(if $(NODES),--shape $(NODES))

.PHONY: cluster-down
cluster-down: tools ## Remove the local cluster without a trace (CLUSTER=name)
	$(OUT)/bin/localcluster down --name $(CLUSTER)

.PHONY: demo-down
demo-down: tools ## Remove the cluster that `make demo` left running
	$(OUT)/bin/localcluster down --name demo

##@ Benchmarks

OPENB ?= $(if $(SPOTBENCH_DATA),$(SPOTBENCH_DATA),../shared/data)/openb

.PHONY: bench-spot
bench-spot: ## Replay spot recordings: SPOT_TRACES=folder of one file per zone, SPOT_PRICES=file
	mkdir -p $(OUT)
	$(GO) run ./bench/spot -traces $$(ls $(SPOT_TRACES)/*.json | paste -sd,) -prices $(SPOT_PRICES) -on-demand 3.06 -work 24h -deadline 36h -restart 3m -json $(OUT)/bench-spot.json -draw $(OUT)/bench-spot

.PHONY: bench-risk
bench-risk: ## Check the hazard model against spot recordings: SPOT_TRACES=folder of one file per zone
	mkdir -p $(OUT)
	$(GO) run ./bench/risk -traces $$(ls $(SPOT_TRACES)/*.json | paste -sd,) -draw $(OUT)/reliability.svg

.PHONY: bench-throughput
bench-throughput: ## Pods per second, attempt latency, CPU and memory of our scheduler beside the stock one
	mkdir -p $(OUT)
	$(GO) run ./bench/throughput -json $(OUT)/throughput.json

.PHONY: bench-agent
bench-agent: ## Memory and CPU of the node agent (8 simulated GPUs, 30 pods, 30 min each for DCGM and NVML), and its times on 200 notices
	mkdir -p $(OUT)
	$(GO) run ./bench/agent -json $(OUT)/bench-agent.json

.PHONY: bench-checkpoint
bench-checkpoint: ## Checkpoints and restores of SIZE (default 1Gi) beside tar | zstd -1 and cp -a
	mkdir -p $(OUT)
	$(GO) run ./bench/checkpoint -size $(or $(SIZE),1Gi) -json $(OUT)/checkpoint.json

.PHONY: bench-catalog
bench-catalog: ## The catalog on RESULTS_DIR's ten million results beside a bare handler, pgbench and Redis (40 GB of disk, 15 min)
	mkdir -p $(OUT)
	$(GO) run ./bench/catalog -dir $(or $(RESULTS_DIR),$(OUT)/bench-catalog) -json $(OUT)/catalog.json

.PHONY: bench-placement
bench-placement: ## GPUs allocated on Alibaba's openb trace, ours beside the published policies (OPENB=directory)
	mkdir -p $(OUT)/placement
	$(GO) run ./bench/placement -nodes $(OPENB)/openb_node_list_gpu_node.csv -pods $(OPENB)/openb_pod_list_default.csv,$(OPENB)/openb_pod_list_gpuspec33.csv \
		-published $(OPENB)/published_allocation.csv -json $(OUT)/placement/shared.json -svg $(OUT)/placement/shared.svg -png $(OUT)/placement/shared.png
	$(GO) run ./bench/placement -nodes $(OPENB)/openb_node_list_gpu_node.csv -pods $(OPENB)/openb_pod_list_gpuspec33.csv -whole ceil \
		-json $(OUT)/placement/whole.json -svg $(OUT)/placement/whole.svg -png $(OUT)/placement/whole.png

##@ Build

.PHONY: tools
tools: ## Build the programs that drive the local cluster and the demo
	$(GO) build -tags $(TAGS) -ldflags '$(LDFLAGS)' -o $(OUT)/bin/ ./cmd/demo ./cmd/localcluster ./cmd/images

.PHONY: build
build: ## Build every program into _out/bin
	$(GO) build -tags $(TAGS) -ldflags '$(LDFLAGS)' -o $(OUT)/bin/ $(addprefix ./cmd/,$(COMMANDS))

.PHONY: images
images: tools ## Build every container image as a tar under _out/images (no Docker needed)
	$(OUT)/bin/images build --out $(OUT)/images

.PHONY: push
push: tools ## Build the images for amd64 and arm64 and push them with bills of materials (REGISTRY=host/path)
	$(OUT)/bin/images push --registry $(REGISTRY) --tag $(VERSION)

.PHONY: generate
generate: ## Regenerate the reference pages and policies that come from code
	$(GO) generate ./pkg/...

##@ Quality

.PHONY: unit
unit: ## Unit and integration tests with the race detector (no cluster)
	$(GO) run $(GOTESTSUM) --format pkgname-and-test-fails -- -race -timeout 20m ./pkg/... ./cmd/... ./bench/...

.PHONY: e2e
e2e: ## End-to-end tests on the real local cluster (root on Linux)
	$(GO) run $(GOTESTSUM) --format standard-verbose -- -race -count=1 -timeout 40m -p 1 ./e2e/...

.PHONY: e2e-upstream
e2e-upstream: ## Other people's controllers (Karpenter, CloudNativePG, External Secrets, a gateway) against our manifests; builds them, minutes the first time
	SPOTBENCH_E2E_UPSTREAM=1 $(GO) run $(GOTESTSUM) --format standard-verbose -- -count=1 -timeout 40m ./e2e/upstream

.PHONY: e2e-platform
e2e-platform: ## Prove every part of the reference platform and print the table (root on Linux; half an hour; ONLY="Redis|RBAC")
	$(GO) run ./e2e/rows $(if $(ONLY),-only "$(ONLY)")

.PHONY: lint
lint: ## Static checks: gofmt, go vet and golangci-lint, strict
	$(GO) run $(GOLANGCI) run ./...

.PHONY: lint-manifests
lint-manifests: ## Render every kustomization; check kinds by schema, workloads by policy
	$(GO) run ./cmd/lint-manifests

.PHONY: fuzz
fuzz: ## Fuzz every parser for FUZZTIME (default 10s) each
	bash hack/fuzz.sh

.PHONY: vuln
vuln: ## Known vulnerabilities in the dependencies (needs the vulnerability database)
	$(GO) run $(GOVULNCHECK) ./...

.PHONY: clean
clean: ## Remove what the build made (the cache in ~/.cache/spotbench stays)
	rm -rf $(OUT)

.PHONY: help
help: ## List every target
	@awk 'BEGIN {FS = ":.*## "} /^##@/ {printf "\n%s\n", substr($$0, 5)} /^[a-z0-9-]+:.*## / {printf "  %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)
