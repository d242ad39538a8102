# What a developer and CI do with this repository. `make` alone lists it.

VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo unknown)
LDFLAGS := -s -w -X main.version=$(VERSION)
# RACE=1 turns the race detector on; PKG and ARGS narrow a test run: make test PKG=./dispatch/... ARGS='-run Claim -v'
PKG     ?= ./...
ARGS    ?=
RACE    ?=
# Counted, not timed: a target that is slow at the deadline would count as failed.
FUZZTIME ?= 2000x
STRESS  ?= 2m
SEED    ?=
RELEASED := e59ba510c00f2154bacb41143f931037930b6403
MATRIX  ?= 14,15,16,17,18,pgbouncer

.DEFAULT_GOAL := help
.PHONY: help build test race matrix stress chaos model fuzz lint fmt tidy demo bench bench-publish cross clean

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  %-13s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

build: ## Build bin/pgbell, static and stripped
	CGO_ENABLED=0 go build -trimpath -ldflags '$(LDFLAGS)' -o bin/pgbell ./cmd/pgbell

test: bin/withpostgres ## Run all tests, with one throwaway Postgres (TEST_DATABASE_URL: with that one)
	bin/withpostgres go test $(if $(RACE),-race) -timeout 15m $(ARGS) $(PKG)

race: ## The same with the race detector
	@$(MAKE) --no-print-directory test RACE=1

matrix: bin/withpostgres bin/matrix ## The same on each Postgres, and through PgBouncer (MATRIX=14,pgbouncer PKG=./dispatch)
	bin/matrix $(MATRIX) bin/withpostgres go test -json $(if $(RACE),-race) -timeout 15m $(ARGS) $(PKG)

stress: bin/withpostgres ## Stress the bell for STRESS (2m) with SEED (the time)
	STRESS=$(STRESS) SEED=$(SEED) bin/withpostgres go test -race -timeout 30m -count 1 -run '^TestStress' -v ./listener

chaos: build bin/pgbell-0.1.0 ## Break everything under load, 5 minutes (FULL=1: over an hour; SCENARIOS=kill,stop SEED=7 RESULTS=docs/chaos.md)
	@go build -o bin/chaos ./internal/chaos/cmd/chaos
	bin/chaos -pgbell bin/pgbell $(if $(FULL),-full) $(if $(SCENARIOS),-scenarios $(SCENARIOS)) $(if $(SEED),-seed $(SEED)) \
	  $(if $(RESULTS),-results $(RESULTS)) $(ARGS)

# The first release, for the scenario upgrade. A copy without its commit (a shallow clone) does without: it is skipped.
bin/pgbell-0.1.0:
	@.ci/release $(RELEASED) $@

model: ## Check the models of the bell and of leases, whole and with each step left out
	.ci/model

fuzz: bin/withpostgres ## Fuzz each target FUZZTIME times (2000x), or for as long (60s)
	bin/withpostgres .ci/fuzz $(FUZZTIME)

lint: bin/golangci-lint ## Check format, go vet and the linters of .golangci.yml
	@unformatted=$$(gofmt -l $$(git ls-files --cached --others --exclude-standard '*.go')); \
	  test -z "$$unformatted" || { echo "not gofmt'ed (make fmt mends it):"; echo "$$unformatted"; exit 1; }
	go vet ./...
	go -C bench vet ./...
	bin/golangci-lint run
	cd bench && ../bin/golangci-lint run --config ../.golangci.yml

fmt: ## Format all Go files
	gofmt -w $$(git ls-files --cached --others --exclude-standard '*.go')

tidy: ## Tidy the go.mod files
	go mod tidy
	go -C bench mod tidy

demo: build ## Show it: a throwaway Postgres, jobs of every kind, a live summary (Ctrl-C ends it)
	bin/pgbell demo

bench: build ## Measure beside the peers, 20 minutes (FULL=1: 100; SCENARIOS=drain,flat ROUNDS=5); results in bench/results
	go -C bench run . -pgbell ../bin/pgbell $(if $(FULL),-full) $(if $(SCENARIOS),-scenarios $(SCENARIOS)) \
	  $(if $(ROUNDS),-rounds $(ROUNDS)) $(ARGS)

bench-publish: ## Show the newest results in docs/bench and the README
	go -C bench run . -publish ../docs/bench -readme ../README.md

cross: ## Build for linux/arm64 and darwin/arm64 into dist/
	GOOS=linux GOARCH=arm64 CGO_ENABLED=0 go build -trimpath -ldflags '$(LDFLAGS)' -o dist/pgbell-linux-arm64 ./cmd/pgbell
	GOOS=darwin GOARCH=arm64 CGO_ENABLED=0 go build -trimpath -ldflags '$(LDFLAGS)' -o dist/pgbell-darwin-arm64 ./cmd/pgbell
	GOOS=darwin GOARCH=arm64 go vet ./...

clean: ## Remove what the targets above made
	rm -rf bin dist

# Always rebuilt: go itself sees what has changed.
.PHONY: bin/withpostgres bin/matrix
bin/withpostgres bin/matrix:
	@go build -o $@ ./internal/postgres/cmd/$(@F)

bin/golangci-lint: tools/go.mod tools/go.sum
	go -C tools build -o ../$@ github.com/golangci/golangci-lint/v2/cmd/golangci-lint
