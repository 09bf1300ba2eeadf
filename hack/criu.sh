#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
#
# criu.sh unpacks a current CRIU, the peer of `make bench`, with the libraries
# it was built against into integration/.cache/criu. Debian 12 has CRIU 3.17,
# which is older than what runc asks for; a newer release of Debian has it. The
# machine's own packages, package lists and apt configuration stay as they are:
# everything happens with apt directories of its own, and nothing is installed.
# The mirror is the one that this machine's apt uses for its own release.
#
# Prints the wrapper's path. Exit status 3 means that it cannot be had here.
set -eu
cd "$(dirname "$0")/.."
out=$PWD/integration/.cache/criu
wrapper=$out/bin/criu
# What to look through, the most stable first.
suites=${CRIU_SUITES:-'trixie-backports forky sid'}
# runc 1.5 works with older ones, but the figures in docs/ name this one.
wanted=${CRIU_VERSION:-4.2}

stamp=$(cat hack/criu.sh | cksum)-$wanted-$suites
if [ "$(cat "$out/.stamp" 2>/dev/null || true)" = "$stamp" ]; then
	echo "$wrapper"
	exit 0
fi

cannot() {
	echo "criu.sh: $*" >&2
	exit 3
}
command -v apt-get >/dev/null || cannot 'there is no apt on this machine'

# The mirror of this machine's release, as apt resolves its own sources.
. /etc/os-release
mirror=$(apt-get indextargets --format '$(REPO_URI) $(RELEASE) $(COMPONENT)' 'Created-By: Packages' |
	awk -v release="${VERSION_CODENAME:-}" '$2 == release && $3 == "main" { print $1; exit }')
[ -n "$mirror" ] || cannot "apt has no source for ${PRETTY_NAME:-this system}"
keyring=/usr/share/keyrings/debian-archive-keyring.gpg
[ -r "$keyring" ] || cannot "$keyring is missing: the packages could not be verified"

rm -rf "$out"
apt=$out/apt
mkdir -p "$apt/lists/partial" "$apt/archives/partial" "$apt/etc" "$out/root" "$out/bin"
# An empty dpkg status makes apt name every library; the machine's proxies and
# the like still hold, its hooks do not.
: >"$apt/status"
cat >"$apt/apt.conf" <<END
#clear APT::Update::Post-Invoke;
#clear APT::Update::Post-Invoke-Success;
#clear DPkg::Post-Invoke;
#clear DPkg::Pre-Install-Pkgs;
#clear Acquire::IndexTargets::deb::DEP-11;
#clear Acquire::IndexTargets::deb::DEP-11-icons-small;
#clear Acquire::IndexTargets::deb::DEP-11-icons;
#clear Acquire::IndexTargets::deb::DEP-11-icons-large;
APT::Sandbox::User "root";
APT::Install-Recommends "false";
Acquire::Languages "none";
Dir::State "$apt";
Dir::State::lists "$apt/lists";
Dir::State::status "$apt/status";
Dir::Cache "$apt";
Dir::Cache::archives "$apt/archives";
Dir::Cache::pkgcache "";
Dir::Cache::srcpkgcache "";
Dir::Etc::sourcelist "$apt/etc/sources.list";
Dir::Etc::sourceparts "-";
Dir::Etc::preferencesparts "-";
Dir::Etc::preferences "-";
Dir::Log "$apt";
END
log=$apt/log
private() { "$@" -c "$apt/apt.conf" >>"$log" 2>&1 </dev/null; }

# A backports suite needs its base for the libraries.
source_lines() {
	case $1 in
	*-backports) echo "deb [signed-by=$keyring] $mirror ${1%-backports} main" ;;
	esac
	echo "deb [signed-by=$keyring] $mirror $1 main"
}

found=''
for suite in $suites; do
	source_lines "$suite" >"$apt/etc/sources.list"
	: >"$log"
	if ! private apt-get -q update; then
		echo "criu.sh: no lists of $suite: $(grep -m 1 -E '^[EW]:' "$log" || tail -n 1 "$log")" >&2
		continue
	fi
	version=$(apt-cache -c "$apt/apt.conf" madison criu | awk -F '|' '{ gsub(/ /, "", $2); print $2 }' |
		grep -m 1 -E "^(${wanted}([.]|-|~|\$))" || true)
	if [ -z "$version" ]; then
		echo "criu.sh: $suite has no criu $wanted" >&2
		continue
	fi
	if private apt-get -q -y --download-only --no-install-recommends install "criu=$version"; then
		found=$version
		break
	fi
	echo "criu.sh: criu $version of $suite: $(grep -m 1 -E '^E:' "$log" || tail -n 1 "$log")" >&2
done
[ -n "$found" ] || cannot "criu $wanted is in none of: $suites"

for package in "$apt"/archives/*.deb; do
	dpkg-deb -x "$package" "$out/root"
done
binary=$(find "$out/root" -type f -path '*/sbin/criu' | head -n 1)
[ -n "$binary" ] || cannot "the package criu $found has no program sbin/criu"
# The loader of the libraries, not the machine's: the two belong together.
loader=$(find "$out/root" \( -type f -o -type l \) -name 'ld-linux-x86-64.so.2' | head -n 1)
[ -n "$loader" ] || cannot "criu $found came without a dynamic loader"
cat >"$wrapper" <<END
#!/bin/sh
exec '$loader' --library-path '$out/root/usr/lib/x86_64-linux-gnu:$out/root/lib/x86_64-linux-gnu' '$binary' "\$@"
END
chmod 755 "$wrapper"
rm -rf "$apt"
"$wrapper" --version >/dev/null || cannot "criu $found does not start"
echo "$found" >"$out/version"
echo "$stamp" >"$out/.stamp"
echo "$wrapper"
