#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
#
# hack/fuzz.sh TAGS [TARGET...]
#
# Every fuzz target for FUZZ_TIME (10m), FUZZ_SIDE (the number of processors)
# of them side by side with a worker each, at the lowest priority. Prints a
# line for each and fails if one of them found anything; what it found lies in
# its package's testdata/fuzz, ready to become a test.
set -eu
cd "$(dirname "$0")/.."
tags=$1
shift
time=${FUZZ_TIME:-10m}
side=${FUZZ_SIDE:-$(nproc)}
logs=$(mktemp -d)
trap 'rm -rf "$logs"' EXIT

targets() {
	grep -rHo --include='*_test.go' '^func Fuzz[A-Za-z0-9_]*' spec layers runtime shim cmd agent |
		sed 's,/[^/]*:func , ,' | sort
}

# one PACKAGE TARGET: fuzzes it and says how it went.
cat >"$logs/one" <<ONE
#!/bin/sh
log="$logs/\$(echo "\$1.\$2" | tr / .)"
nice -n 19 go test -tags "$tags" -run '^\$' -fuzz "^\$2\\\$" -fuzztime "$time" -parallel 1 "./\$1" >"\$log" 2>&1 && ok=ok || ok=FAIL
echo "\$ok \$1 \$2 \$(grep -o 'execs: [0-9]*' "\$log" | tail -1)"
[ \$ok = ok ] || { cat "\$log"; touch "$logs/failed"; }
ONE
chmod +x "$logs/one"

{ [ $# -eq 0 ] && targets || targets | grep -E "$(echo "$*" | tr ' ' '|')"; } |
	xargs -n 2 -P "$side" "$logs/one"
[ ! -e "$logs/failed" ] || { echo "a fuzz target found something" >&2; exit 1; }
