#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
#
# tools.sh [GROUP...] builds the programs that the tests and the checks run:
#
#   containerd   the newer containerd and its ctr; all that the demo needs
#   runc         runc and containerd's shim for it, the peer of the tests
#   checks       the linters and benchstat
#
# Without a group it builds all of them. Their versions are pinned in
# integration/go.mod. The result is kept in integration/.cache/bin and a group
# is built again only when a pin, this script or the Go toolchain changes.
set -eu
cd "$(dirname "$0")/../integration"
out=$PWD/.cache/bin
mkdir -p "$out"
pins=$(cat go.mod go.sum ../hack/tools.sh | cksum)-$(go env GOVERSION)
containerd=github.com/containerd/containerd/v2
runc=github.com/opencontainers/runc

# Programs are moved into place whole: others may be running the old ones.
new=$(mktemp -d "$out/new.XXXXXX")
trap 'rm -rf "$new"' EXIT
trap 'exit 130' INT TERM

version() { go list -m -f '{{.Version}}' "$1"; }

build_containerd() {
	echo "building containerd $(version $containerd) (once; a minute or two)"
	go_containerd cmd/containerd cmd/ctr
}

# go_containerd builds programs of containerd's module.
go_containerd() {
	for program; do
		CGO_ENABLED=0 go build -trimpath -tags no_btrfs,no_devmapper,no_zfs,netgo,osusergo \
			-ldflags "-s -w -X $containerd/version.Version=$(version $containerd)" \
			-o "$new/" "$containerd/$program" || return 1
	done
}

build_runc() {
	echo "building runc $(version $runc) and containerd's shim for it (once)"
	go_containerd cmd/containerd-shim-runc-v2
	CGO_ENABLED=1 go build -trimpath -tags seccomp,netgo,osusergo \
		-ldflags "-s -w -X main.version=$(version $runc | sed s/^v//) -extldflags -static" \
		-o "$new/" $runc
}

build_checks() {
	echo 'building the linters and benchstat (once)'
	CGO_ENABLED=0 go build -trimpath -ldflags '-s -w' -o "$new/" \
		honnef.co/go/tools/cmd/staticcheck golang.org/x/perf/cmd/benchstat
}

[ $# -gt 0 ] || set -- containerd runc checks
for group; do
	case $group in
	containerd | runc | checks) ;;
	*) echo "tools.sh: there is no group $group" >&2; exit 2 ;;
	esac
	stamp=$out/.stamp-$group
	[ "$(cat "$stamp" 2>/dev/null || true)" != "$pins" ] || continue
	rm -f "$stamp"
	"build_$group"
	mv -f "$new"/* "$out/"
	echo "$pins" >"$stamp"
done
