#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
#
# deps.sh installs, with apt, the Debian packages that building and testing
# mig need, and only those that are missing. It asks apt's own configuration
# where to get them. No daemon that comes with a package is started: while
# packages are unpacked a policy-rc.d answers "forbidden" (see
# invoke-rc.d(8)), and it is removed again at the end.
set -eu

# What the build needs, then what the tests run. Go fetches modules with the
# certificates. The tests copy Debian's /usr/bin/python3 and its standard
# library into an image, whatever other python3 comes first in PATH.
packages='
	ca-certificates gcc libc6-dev libseccomp-dev pkg-config
	containerd runc
	busybox-static redis-server redis-tools memcached python3
	nginx-light apache2 apache2-utils haproxy php-fpm nodejs gunicorn
	postgresql-15 mariadb-server sqlite3 openjdk-17-jdk-headless erlang-base
	openssh-server openssh-client tini wrk
	iproute2 nftables iptables containernetworking-plugins procps util-linux mount
'

command -v go >/dev/null || {
	echo 'deps.sh: there is no go in PATH: install Go from https://go.dev/dl' >&2
	exit 1
}
command -v apt-get >/dev/null || {
	echo "deps.sh: this is no Debian: install the counterparts of$(echo $packages | sed 's/^/ /') yourself" >&2
	exit 1
}

# installed answers for any architecture: dpkg prints a line for each.
installed() {
	dpkg-query -W -f '${db:Status-Status}\n' "$1" 2>/dev/null | grep -qx installed
}

missing=''
for package in $packages; do
	installed "$package" || missing="$missing $package"
done
[ -n "$missing" ] || exit 0

if [ "$(id -u)" -ne 0 ]; then
	if ! command -v sudo >/dev/null; then
		echo "deps.sh: these packages are missing:$missing" >&2
		echo "deps.sh: run it as root, or install sudo" >&2
		exit 1
	fi
	exec sudo env PATH="$PATH" "$0" "$@"
fi

# Apt would remove it, and Docker with it, for Debian's.
if installed containerd.io; then
	echo 'deps.sh: containerd.io, of Docker, is installed; the tests need containerd 1.6 of Debian,' >&2
	echo 'deps.sh: and the two exclude each other: use another machine' >&2
	exit 1
fi

echo "installing:$missing"
log=$(mktemp)
policy=/usr/sbin/policy-rc.d
ours=''
tidy() {
	rm -f "$log"
	[ -z "$ours" ] || rm -f "$policy"
}
trap tidy EXIT
trap 'exit 130' INT TERM
if [ ! -e "$policy" ]; then
	ours=yes
	printf '#!/bin/sh\nexit 101\n' >"$policy"
	chmod 755 "$policy"
fi

export DEBIAN_FRONTEND=noninteractive
apt() {
	if ! apt-get -q -y -o DPkg::Lock::Timeout=300 "$@" >"$log" 2>&1 </dev/null; then
		cat "$log" >&2
		echo "deps.sh: apt-get $* failed" >&2
		exit 1
	fi
}
apt update
# shellcheck disable=SC2086 # one word per package is what is wanted
apt install --no-install-recommends $missing
