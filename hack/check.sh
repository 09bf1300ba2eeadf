#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
#
# check.sh TAGS runs every static check on both modules and goes on after a
# failure, so that one run shows all of them. It needs hack/tools.sh's linters.
set -u
cd "$(dirname "$0")/.."
tags=$1
tools=$PWD/integration/.cache/bin
failed=''

# check NAME COMMAND... runs one check and remembers its failure.
check() {
	name=$1
	shift
	if "$@"; then
		echo "ok    $name"
	else
		echo "FAIL  $name"
		failed="$failed $name"
	fi
}

sources() {
	find . -name .cache -prune -o -name .git -prune -o -type f "$@" -print
}

formatted() {
	unformatted=$(sources -name '*.go' | xargs gofmt -l)
	[ -z "$unformatted" ] || { echo "$unformatted"; echo 'run gofmt -w on these'; return 1; }
}

licensed() {
	sources \( -name '*.go' -o -name '*.proto' -o -name '*.s' -o -name '*.sh' -o -name '*.c' \) | xargs awk '
		FNR <= 2 && /SPDX-License-Identifier: Apache-2.0/ { seen[FILENAME] = 1 }
		FNR == 1 { files[FILENAME] = 1 }
		END {
			for (file in files) if (!(file in seen)) { print file ": no SPDX-License-Identifier: Apache-2.0 at the top"; bad = 1 }
			exit bad
		}'
}

inside() { (cd "$1" && shift && "$@"); }

check gofmt formatted
check licence licensed
check imports go run ./hack/importcheck .
check vet go vet -tags "$tags" ./...
check staticcheck "$tools/staticcheck" -tags "$tags" ./...
check integration-vet inside integration go vet ./...
check integration-staticcheck inside integration "$tools/staticcheck" ./...

[ -z "$failed" ] || { echo "check:$failed failed" >&2; exit 1; }
