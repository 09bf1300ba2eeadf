#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
#
# tools.sh builds the programs that the tests and the checks run: the newer
# containerd with its ctr and runc shim, runc, and the linters. Their versions
# are pinned in integration/go.mod. The result is kept in
# integration/.cache/bin and built again only when a pin, this script or the
# Go toolchain changes.
set -eu
cd "$(dirname "$0")/../integration"
out=$PWD/.cache/bin
mkdir -p "$out"

stamp=$(cat go.mod go.sum ../hack/tools.sh | cksum)-$(go env GOVERSION)
if [ "$(cat "$out/.stamp" 2>/dev/null || true)" = "$stamp" ]; then
	exit 0
fi
rm -f "$out/.stamp"
# Programs are moved into place whole: others may be running the old ones.
new=$(mktemp -d "$out/new.XXXXXX")
trap 'rm -rf "$new"' EXIT

version() { go list -m -f '{{.Version}}' "$1"; }
containerd=github.com/containerd/containerd/v2
runc=github.com/opencontainers/runc

echo "building containerd $(version $containerd) and its tools (once, a few minutes)"
CGO_ENABLED=0 go build -trimpath \
	-tags no_btrfs,no_devmapper,no_zfs,netgo,osusergo \
	-ldflags "-s -w -X $containerd/version.Version=$(version $containerd)" \
	-o "$new/" $containerd/cmd/containerd $containerd/cmd/ctr $containerd/cmd/containerd-shim-runc-v2

echo "building runc $(version $runc)"
CGO_ENABLED=1 go build -trimpath -tags seccomp,netgo,osusergo \
	-ldflags "-s -w -X main.version=$(version $runc | sed s/^v//) -extldflags -static" \
	-o "$new/" $runc

echo 'building the linters'
CGO_ENABLED=0 go build -trimpath -ldflags '-s -w' -o "$new/" \
	honnef.co/go/tools/cmd/staticcheck golang.org/x/perf/cmd/benchstat

mv -f "$new"/* "$out/"
echo "$stamp" >"$out/.stamp"
