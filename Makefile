# `make` alone lists what can be made.

PREFIX      ?= /usr/local
FUZZTIME    ?= 5m
SOAK        ?= 1h
STATICCHECK ?= honnef.co/go/tools/cmd/staticcheck@v0.8.2
GOVULNCHECK ?= golang.org/x/vuln/cmd/govulncheck@v1.1.4
CONTAINER   ?= docker
NFPM        ?= github.com/goreleaser/nfpm/v2/cmd/nfpm@v2.43.0
VERSION     ?= $(shell git describe --tags --dirty 2>/dev/null | sed 's/^v//' | grep . || git log -1 --date=format:%Y%m%d --format=0~git%cd.%h)
MAINTAINER  ?= $(shell git config user.name) <$(shell git config user.email)>
TOOLS       := $(shell go env GOPATH)/bin

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "%-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

build: ## build ./mailreeve, static, without debug information
	CGO_ENABLED=0 go build -trimpath -ldflags='-w -X main.release=$(VERSION)' -o mailreeve ./cmd/mailreeve

run: ## run the demo: an embedded mail server, mailreeve in front, an attack
	go run ./cmd/mailreeve demo

test: ## all tests, with the race detector, and against real servers (needs root once, to install them); KERNEL_FILTER=auto has the kernel refuse the banned
	go run ./integration/install
	MAILREEVE_TEST_KERNEL_FILTER=$(KERNEL_FILTER) go test -race -timeout 20m ./...

check: ## gofmt, go vet, staticcheck; govulncheck where its database is reachable
	@test -z "$$(gofmt -l .)" || { echo "not formatted:"; gofmt -l .; exit 1; }
	go vet ./... && go run $(STATICCHECK) ./...
	go install $(GOVULNCHECK) && { $(TOOLS)/govulncheck ./... || { [ $$? -ne 3 ] && echo "vulnerabilities were NOT checked"; }; }

fuzz: ## every fuzz target for FUZZTIME each
	@set -e; for p in $$(go list ./...); do for f in $$(go test -run '^$$' -list '^Fuzz' $$p | grep '^Fuzz' || true); do \
	echo "$$f in $$p"; go test -run '^$$' -fuzz "^$$f$$" -fuzztime $(FUZZTIME) -fuzzminimizetime 10x $$p; done; done

bench: ## mailreeve beside nginx, HAProxy and Dovecot, within 15 minutes, as root; BENCH="-rows idle" for a part
	go run ./integration/bench $(BENCH)

clients: ## real clients through mailreeve and straight at the servers, in a table: docs/clients.md
	MAILREEVE_CLIENTS=$(CURDIR)/docs/clients.md go test -v -count 1 -timeout 30m -run TestClientsTable ./integration

soak: ## attackers, clients and restarts for SOAK, then nothing may be left over
	MAILREEVE_TEST_RACE=off MAILREEVE_SOAK=$(SOAK) go test -v -count 1 -timeout 0 -run TestSoak ./integration

fleet: ## three proxies behind HAProxy, Valkey or Redis with Sentinels, on this machine, and an attack on them
	go run ./deploy/fleet

fleet-table: ## measure the shared store for the table in docs/fleet.md (FLEET_BANS=100000 for less than a million)
	go test -run '^$$' -bench Fleet -benchtime 1x -timeout 30m ./guard

install: ## install what was built with its unit, user, manual and completions under PREFIX, as root
	PREFIX=$(PREFIX) DESTDIR=$(DESTDIR) deploy/install.sh

package: build ## make dist/mailreeve_VERSION_ARCH.deb
	rm -rf dist/root && PREFIX=/usr DESTDIR=dist/root HERE='env GOOS= GOARCH= go run ./cmd/mailreeve' deploy/install.sh
	go install $(NFPM) && VERSION='$(VERSION)' MAINTAINER='$(MAINTAINER)' GOARCH=$$(go env GOARCH) $(TOOLS)/nfpm package -f deploy/package/nfpm.yaml -p deb -t dist

image: build ## make the container image with CONTAINER=docker, podman or buildah
	deploy/container/fill.sh && $(CONTAINER) build -f deploy/container/Containerfile -t mailreeve .

.PHONY: help build run test check fuzz bench clients soak fleet fleet-table install package image
