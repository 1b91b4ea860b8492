# Sluice. `make` alone lists what there is to make.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
# The checks read the tree that `generate` writes, and two cores are busy with one target anyway.
.NOTPARALLEL:

# The longest first, so that none of them is left to run alone. Guests take one CPU the whole time, the others share the second.
PKGS         ?= ./tests/vm ./tests/image ./tests/progruntc ./tests/netns ./tests/progrun ./...
FUZZTIME     ?= 10s
TEST_TIMEOUT ?= 30m
# full or quick. Only a full run replaces the report that is kept.
BENCH        ?= full
BENCH_OUT    ?= $(if $(filter full,$(BENCH)),tests/bench/results,.cache/bench)
# Control is where goroutines meet; the gate is here because there is always something of it to run.
RACE_PKGS    ?= ./control/... ./tests/gate

VERSION := $(shell git describe --tags --always --dirty 2>/dev/null || echo unknown)

# The version comes from git describe. Go's own stamp would refuse a clone that belongs to another user.
export GOFLAGS := -buildvcs=false
# Nothing here is C for the host but what the race detector needs, and with one setting what was built for the tests serves the checks.
export CGO_ENABLED := 0
# For go:generate lines that do not name their compiler.
export BPF2GO_CC    := clang-19
export BPF2GO_STRIP := llvm-strip-19

ROOT_ONLY = @[[ $$(id -u) == 0 ]] || { echo "make $@: needs root (network namespaces and BPF): run it as root" >&2; exit 1; }

help: ## list the targets
	@echo "Sluice $(VERSION)"
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-16s %s\n", $$1, $$2}' $(firstword $(MAKEFILE_LIST))

build: ## build bin/sluice; needs Go alone, the compiled BPF objects are committed
	go build -trimpath -ldflags '-s -w -X main.version=$(VERSION)' -o bin/sluice ./cmd/sluice

demo: build ## build, then run the virtual site and prove each claim (root)
	$(ROOT_ONLY)
	bin/sluice lab run

generate: ## compile the BPF programs and write the Go code made from them
	go generate ./...

deps: ## install what tests and checks need with apt-get; does only what is missing
	@tests/tools/deps.sh

bin/gate: FORCE
	@go build -o $@ ./tests/gate

test: deps bin/gate ## run every test (root); a skip is a failure. PKGS=./xdp/... for a part
	$(ROOT_ONLY)
	@mkdir -p .cache && rm -f .cache/test-summary
	bin/gate -summary .cache/test-summary -- -p 2 -timeout $(TEST_TIMEOUT) $(PKGS)

test-site: deps bin/gate ## two whole daemons and tunnels of the kernel's in a virtual machine (root): 25 minutes, not part of `make test`; STEPS='MTU|clock' for some
	$(ROOT_ONLY)
	bin/gate -- -tags site -timeout 130m -run '^TestSite$$/($(STEPS))' ./tests/vm

image: deps ## build the node image into .cache/image/out: UKI, disk, manifest, SBOM; MIRROR=, VERSION=, SIGN=, HARDENED=, ENCRYPT=, CONFIG=: see images/build
	images/build

run-image: deps ## build the node image and boot it in QEMU at this terminal, with configs/node-image.yaml; CONFIG=FILE for another one
	CONFIG= images/build
	images/run

deb: ## build the Debian package into .cache/deb; VERSION=, OUT=: see packaging/build
	packaging/build

test-deb: deps bin/gate ## install, upgrade, remove and purge the Debian package in a chroot (root): 4 minutes, not part of `make test`
	$(ROOT_ONLY)
	bin/gate -- -tags deb -timeout 30m ./tests/deb

test-image: deps bin/gate ## boot the node image in QEMU, with every test of it (root)
	$(ROOT_ONLY)
	@tests/tools/deps.sh swtpm
	bin/gate -- -tags image -timeout 130m ./tests/image

race: deps bin/gate ## run the tests of control/ under the race detector (root)
	$(ROOT_ONLY)
	CGO_ENABLED=1 bin/gate -- -race -p 2 -timeout $(TEST_TIMEOUT) $(RACE_PKGS)

model: deps bin/gate ## hold the programs against the reference models with seeds that nobody had, flows for FUZZTIME (root)
	$(ROOT_ONLY)
	SLUICE_SEED=$$(date +%s%N) CGO_ENABLED=0 bin/gate -- -timeout $(TEST_TIMEOUT) -run 'AgreesWithTheReferenceModel$$' ./tests/progrun ./tests/progruntc
	SLUICE_MODEL_TIME=$(FUZZTIME) CGO_ENABLED=0 bin/gate -- -timeout $(TEST_TIMEOUT) -run '^TestFlowsAndTranslations$$' ./tests/progruntc

fuzz: ## run every fuzz target for FUZZTIME each
	tests/tools/fuzz.sh $(FUZZTIME)

check: deps lint lint-c arch fresh mod race ## everything that CI checks besides the tests (root)
	@echo "check: all good"

lint: ## gofmt, go vet, staticcheck, for what runs in virtual machines as well
	@unformatted=$$(gofmt -l .); [[ -z $$unformatted ]] || { echo "gofmt -w these: $$unformatted" >&2; exit 1; }
	go vet ./...
	go tool staticcheck ./...
	@tagged=$$(git grep -lE '^//go:build (site|vmguest|image|deb)$$' -- '*.go' | xargs dirname | sort -u | sed 's,^,./,') && set -x && \
	go vet -tags site,vmguest,image,deb $$tagged && go tool staticcheck -tags site,vmguest,image,deb $$tagged

lint-c: ## all warnings of clang on the BPF programs, and clang-format
	@tests/tools/lint-c.sh

arch: ## import directions, file sizes, no machine paths, and the tests of these checks
	go test -count=1 ./tests/arch ./tests/tools

fresh: ## make generate must change nothing
	tests/tools/unchanged.sh go generate ./...

mod: ## modules are what go.sum says, and go.mod is tidy
	go mod verify
	go mod tidy -diff

bench: deps ## measure ingress beside its rivals and write a report (root): 10 minutes; BENCH=quick 2
	$(ROOT_ONLY)
	@go build -o bin/bench-ingress ./tests/bench/ingress
	bin/bench-ingress -size $(BENCH) -out $(BENCH_OUT) -revision $(VERSION)

bench-path: deps ## measure TCP through two gateways and past an egress filter (root): 14 minutes; BENCH=quick 4
	$(ROOT_ONLY)
	@go build -o bin/bench-path ./tests/bench/path
	bin/bench-path -size $(BENCH) -out $(BENCH_OUT) -revision $(VERSION)

bench-footprint: deps ## measure memory, changes under load, the idle daemon and the boot (root): 8 minutes; BENCH=quick 2
	$(ROOT_ONLY)
	@go build -o bin/bench-footprint ./tests/bench/footprint
	bin/bench-footprint -size $(BENCH) -out $(BENCH_OUT) -revision $(VERSION)

bench-tunnel: deps ## measure WireGuard and ESP, on the host and in a virtual machine (root): 14 minutes; BENCH=quick 6
	$(ROOT_ONLY)
	@go build -o bin/bench-tunnel ./tests/bench/tunnel
	bin/bench-tunnel -size $(BENCH) -out $(BENCH_OUT) -revision $(VERSION)

bench-bgp: deps ## measure what a full table costs, beside BIRD 2 (root): 16 minutes, 90 and 14 GB at most; BENCH=quick 3
	$(ROOT_ONLY)
	@go build -o bin/bench-bgp ./tests/bench/bgp
	bin/bench-bgp -size $(BENCH) -out $(BENCH_OUT) -revision $(VERSION)

bench-all: bench bench-path bench-footprint bench-tunnel bench-bgp ## all benchmarks, and a page that shows what they found (root)
	@go build -o bin/bench-index ./tests/bench/index
	bin/bench-index -out $(BENCH_OUT)

clean: ## remove what was built
	rm -rf bin .cache
	find . -path ./.git -prune -o -type f \( -name '*.test' -o -name '*.prof' \) -exec rm -f {} +

FORCE:
.PHONY: help build demo generate deps test test-site race model fuzz check lint lint-c arch fresh mod bench bench-path bench-footprint bench-tunnel bench-bgp bench-all image run-image test-image deb test-deb clean FORCE
