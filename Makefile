# SPDX-License-Identifier: Apache-2.0
SHELL       := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

VERSION     ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
CLUSTER     ?= default
NODES       ?=
LDFLAGS     := -s -w -X github.com/spotbench/spotbench/pkg/version.release=$(VERSION)
GO          ?= go
GOTESTSUM   := gotest.tools/gotestsum@v1.13.0
GOLANGCI    := github.com/golangci/golangci-lint/v2/cmd/golangci-lint@v2.15.0
GOVULNCHECK := golang.org/x/vuln/cmd/govulncheck@v1.9.0
COMMANDS    := scheduler node-agent catalog-api bench-runner sim-llm localcluster gpu-device-plugin images demo
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

.PHONY: cluster-up
cluster-up: tools ## Start the local cluster (CLUSTER=name, NODES=shape file)
	$(OUT)/bin/localcluster up --name $(CLUSTER) $(if $(NODES),--shape $(NODES))

.PHONY: cluster-down
cluster-down: tools ## Remove the local cluster without a trace (CLUSTER=name)
	$(OUT)/bin/localcluster down --name $(CLUSTER)

.PHONY: demo-down
demo-down: tools ## Remove the cluster that `make demo` left running
	$(OUT)/bin/localcluster down --name demo

##@ Build

.PHONY: tools
tools: ## Build the programs that drive the local cluster and the demo
	$(GO) build -ldflags '$(LDFLAGS)' -o $(OUT)/bin/ ./cmd/demo ./cmd/localcluster ./cmd/images

.PHONY: build
build: ## Build every program into _out/bin
	$(GO) build -ldflags '$(LDFLAGS)' -o $(OUT)/bin/ $(addprefix ./cmd/,$(COMMANDS))

.PHONY: images
images: tools ## Build every container image as a tar under _out/images (no Docker needed)
	$(OUT)/bin/images build --out $(OUT)/images

.PHONY: generate
generate: ## Regenerate the reference pages and policies that come from code
	$(GO) generate ./pkg/...

##@ Quality

.PHONY: unit
unit: ## Unit and integration tests with the race detector (no cluster)
	$(GO) run $(GOTESTSUM) --format pkgname-and-test-fails -- -race -timeout 20m ./pkg/... ./cmd/...

.PHONY: e2e
e2e: ## End-to-end tests on the real local cluster (root on Linux)
	$(GO) run $(GOTESTSUM) --format standard-verbose -- -count=1 -timeout 40m -p 1 ./e2e/...

.PHONY: lint
lint: ## Static checks: gofmt, go vet and golangci-lint, strict
	$(GO) run $(GOLANGCI) run ./...

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
