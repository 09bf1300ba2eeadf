# SPDX-License-Identifier: Apache-2.0
#
# What the servers' scripts share. They run in the container as root.
mkdir -p /load
chmod 1777 /load

# load N KIND ADDRESS starts N clients.
load() {
	for i in $(seq "$1"); do
		python3 /files/load.py "$2" "$3" "$2$i" &
	done
}

# listening PORT waits until somebody does.
listening() {
	until bash -c "exec 3<>/dev/tcp/127.0.0.1/$1" 2>/dev/null; do sleep 0.05; done
}

# as USER COMMAND... runs as another user.
as() {
	user=$1
	shift
	setpriv --reuid="$user" --regid="$(id -g "$user")" --init-groups "$@"
}
