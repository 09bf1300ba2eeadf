# SPDX-License-Identifier: Apache-2.0
#
# make demo    watch a Redis being checkpointed and restored, and one moving live
# make test    everything, as root (through sudo if you are not)
# make help    the rest

SHELL   := /bin/sh
PREFIX  ?= /usr/local
DESTDIR ?=

# runc_nocriu keeps libcontainer's CRIU code out of the build, seccomp puts
# the filters in, netgo and osusergo make a static binary honest.
TAGS    := runc_nocriu,seccomp,netgo,osusergo
# The shim and its engine are of one build if their sources are.
BUILD   := $(shell find cmd layers runtime shim spec go.mod go.sum -type f ! -name '*_test.go' ! -path '*/testdata/*' | LC_ALL=C sort | xargs sha256sum | sha256sum | cut -c1-16)
LDFLAGS := -s -w -extldflags -static -X github.com/io-mig/mig/layers/request/enginepipe.Build=$(BUILD)
export GOFLAGS := -buildvcs=false $(GOFLAGS)
export CGO_ENABLED := 1

# Programs whose source is there.
PROGRAMS := $(notdir $(patsubst %/,%,$(dir $(wildcard cmd/*/main.go))))
CACHE    := integration/.cache
# Root tests are compiled by you and run by root, with root's HOME: no file of
# root's gets into your Go caches.
SUDO     := $(if $(filter 0,$(shell id -u)),,sudo -E env PATH=$(PATH) HOME=/root GOCACHE=/root/.cache/go-build GOMODCACHE=$(shell go env GOMODCACHE))
EXEC     := $(if $(SUDO),-exec '$(SUDO)',)
TEST     ?=
RUN      := $(if $(TEST),-run '$(TEST)',)
# How often `make soak` repeats.
ROUNDS   ?= 10
# How long it walks the faults of moves at random.
WALK     ?= 1h
# The shim that `make build` has built is the one that is tested.
export MIG_SHIM_DIR := $(CURDIR)/bin

.PHONY: all
all: build

.PHONY: help
help: ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 12

.PHONY: build
build: deps ## static binaries into bin/
	@mkdir -p bin
	@for program in $(PROGRAMS); do \
		echo "go build bin/$$program"; \
		go build -trimpath -tags $(TAGS) -ldflags '$(LDFLAGS)' -o bin/$$program ./cmd/$$program || exit 1; \
	done

.PHONY: install
install: build ## copy the binaries to $(PREFIX)/bin
	install -d $(DESTDIR)$(PREFIX)/bin
	install -m 755 $(addprefix bin/,$(PROGRAMS)) $(DESTDIR)$(PREFIX)/bin/

.PHONY: deps
deps: ## install what is missing with apt
	@hack/deps.sh

.PHONY: tools
tools: deps ## the pinned containerd, runc and linters into integration/.cache/bin
	@hack/tools.sh

.PHONY: unit
unit: deps ## unit tests that need no root
	go test -short -tags $(TAGS) -timeout 5m ./...

.PHONY: check
check: tools ## formatting, vet, staticcheck, import rules, licence headers
	@hack/check.sh $(TAGS)

.PHONY: workloads
workloads: tools
	@cd integration && CGO_ENABLED=0 go build -o .cache/bin/ ./cmd/counter ./cmd/talk
	@CGO_ENABLED=0 go build -o $(CACHE)/bin/agent-example ./agent/example
	@go build -trimpath -tags $(TAGS) -ldflags '$(LDFLAGS)' -o $(CACHE)/bin/mig-engine-test ./layers/engine/enginetest
	@gcc -std=gnu11 -O2 -Wall -Wextra -Werror -static -pthread -o $(CACHE)/bin/agent-example-c agent/example/c/example.c

.PHONY: test
test: build tools workloads check ## everything, as root
	go test -tags $(TAGS) $(EXEC) -count 1 -timeout 10m $(RUN) ./...
	cd integration && go test $(EXEC) -p 1 -count 1 -timeout 45m $(RUN) ./...

.PHONY: soak
soak: build tools workloads ## what dies or races at random, ten rounds: an hour or two
	MIG_SOAK=1 go test -tags $(TAGS) $(EXEC) -count $(ROUNDS) -timeout 2h ./layers/kernel/... ./runtime ./shim/...
	cd integration && MIG_KILLS=1000 go test $(EXEC) -p 1 -count 1 -timeout 4h ./faults
	cd integration && go test $(EXEC) -p 1 -count $(ROUNDS) -timeout 4h $(RUN) ./parity ./checkpoint
	cd integration && MIG_TRAFFIC_MOVES=10 MIG_BACK_AND_FORTH=200 go test $(EXEC) -p 1 -count 1 -timeout 4h -run 'TestTraffic|TestRedisBackAndForth' ./live
	cd integration && MIG_SOAK=1 MIG_KILLS=200 go test $(EXEC) -p 1 -count $(ROUNDS) -timeout 4h -run 'TestDeath' ./live
	cd integration && MIG_WALK=$(WALK) go test $(EXEC) -p 1 -count 1 -timeout 0 -v -run 'TestRandomWalk' ./live
	cd integration && MIG_STORM_CHECKPOINTS=200 MIG_SERVER_ROUNDS=20 go test $(EXEC) -p 1 -count 1 -timeout 4h ./programs ./servers

.PHONY: fuzz
fuzz: deps ## every fuzz target for ten minutes
	hack/fuzz.sh $(TAGS) $(TEST)

.PHONY: demo
demo: build ## a Redis is checkpointed, removed and restored; one moves under its clients
	@hack/tools.sh containerd
	@hack/demo

.PHONY: bench
bench: build tools ## the table of docs/benchmarks.md
	cd integration && go build -o .cache/bin/mig-bench ./cmd/bench
	$(SUDO) $(CACHE)/bin/mig-bench

.PHONY: bench-live
bench-live: build tools ## live moves between two hosts, the second table there
	cd integration && go build -o .cache/bin/mig-bench ./cmd/bench
	$(SUDO) $(CACHE)/bin/mig-bench -live $(FLAGS)

.PHONY: clean
clean: ## remove what was built, but for the pinned tools
	rm -rf bin bench-out

.PHONY: distclean
distclean: clean ## remove the pinned tools too
	rm -rf $(CACHE)
