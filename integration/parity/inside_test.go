// SPDX-License-Identifier: Apache-2.0

package parity

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/io-mig/mig/integration/internal/daemon"
)

// insideOperations look at the container from its inside.
var insideOperations = []operation{
	{name: "inside-environment", do: func(p *probe) { p.sh("env | sort; pwd; id; umask; echo $$ $PPID") }},
	{name: "inside-status", do: func(p *probe) {
		// A shell with one command becomes it, pid 1; which number another
		// process gets depends on the threads of the runtime's init.
		p.run(nil, "sh", "-c", "grep -E '^(Name|Umask|Tgid|Uid|Gid|Groups|NStgid|NSpid|NSsid|Sig[BIC]|Cap|NoNew|Seccomp|Cpus_allowed)' /proc/self/status")
	}},
	{name: "inside-limits", do: func(p *probe) { p.sh("cat /proc/self/limits; cat /proc/self/oom_score_adj") }},
	{name: "inside-mounts", do: func(p *probe) {
		// Without ids and device numbers, and without the overlay's directories.
		p.sh(`awk '{ $1=$2=$3=""; sub(/ - overlay overlay .*/, " - overlay"); print }' /proc/self/mountinfo`)
	}},
	{name: "inside-devices", do: func(p *probe) { p.sh("ls -lR /dev | grep -v ^total | sed 's/ [A-Z][a-z][a-z] .*[0-9] / /'") }},
	{name: "inside-device-access", do: func(p *probe) {
		p.sh("for d in null zero full random urandom; do head -c1 /dev/$d >/dev/null 2>&1; echo $d $?; done; mknod /dev/sda b 8 0; head -c1 /dev/sda")
	}},
	{name: "inside-descriptors", do: func(p *probe) { p.sh("ls /proc/self/fd; ls /proc/1/fd") }},
	{name: "inside-own-namespaces", do: insideNamespaces},
	{name: "inside-cgroup", do: func(p *probe) { p.sh("cut -d: -f2- /proc/self/cgroup") }},
	{name: "inside-masked-paths", do: func(p *probe) {
		p.sh("for f in /proc/kcore /proc/keys /proc/timer_list /proc/sysrq-trigger /sys/firmware; do echo $f; head -c9 $f; ls $f | wc -l; done; echo 1 >/proc/sys/vm/overcommit_memory")
	}},
	{name: "inside-processes", do: func(p *probe) { p.run(nil, "sh", "-c", "ps -o pid,ppid,pgid,sid,args") }},
	{name: "inside-network", do: func(p *probe) { p.sh("ip -o link | cut -d: -f2- | sed 's/qdisc.*//'; ip route") }},
	{name: "net-host", do: func(p *probe) {
		out := p.quiet(p.runArgs([]string{"--rm", "--net-host"}, "readlink", "/proc/self/ns/net")...)
		host, _ := os.Readlink("/proc/self/ns/net")
		p.record("exit %d, the host's network: %v", out.Code, strings.TrimSpace(out.Stdout) == host)
	}},
	{name: "with-ns", do: withNamespace},
	{name: "mount-bind", do: func(p *probe) {
		p.file("data", "from the host\n", 0o644)
		p.sh("cat /data/data; echo from inside >/data/reply", "--mount", "type=bind,src="+p.dir+",dst=/data,options=rbind:rw")
		p.content(filepath.Join(p.dir, "reply"), "inside")
	}},
	{name: "mount-bind-readonly", do: func(p *probe) {
		p.sh("echo x >/data/reply; grep ' /data ' /proc/self/mountinfo | cut -d' ' -f6", "--mount", "type=bind,src="+p.dir+",dst=/data,options=rbind:ro")
	}},
	{name: "mount-bind-file", do: func(p *probe) {
		file := p.file("one", "one file\n", 0o600)
		p.sh("cat /etc/one; ls -l /etc/one | cut -c1-10", "--mount", "type=bind,src="+file+",dst=/etc/one,options=bind:ro")
	}},
	{name: "mount-tmpfs", do: func(p *probe) {
		p.sh("grep ' /scratch ' /proc/mounts; touch /scratch/x && ls -ld /scratch | cut -c1-10", "--mount", "type=tmpfs,src=tmpfs,dst=/scratch,options=size=1m:mode=1770:noexec:nosuid")
	}},
	{name: "read-only", do: func(p *probe) {
		p.sh("touch /x; touch /dev/shm/y && echo shm; touch /run/z && echo run", "--read-only")
	}},
	{name: "rootfs-propagation", do: func(p *probe) {
		p.sh("awk '$5 == \"/\" { print $7, $8 }' /proc/self/mountinfo | sed 's/[0-9]//g'", "--rootfs-propagation", "rslave")
	}},
	{name: "no-pivot", do: func(p *probe) { p.sh("ls /; ls /.. | wc -l", "--no-pivot") }},
	{name: "privileged", do: func(p *probe) {
		p.sh("grep -E '^(Cap|Seccomp|NoNew)' /proc/self/status; touch /proc/sys/kernel/panic && echo writable; grep -c ' /sys .*[ ,]rw' /proc/self/mountinfo; ls /dev | wc -l", "--privileged")
	}},
	{name: "privileged-without-devices", only: daemon.V24, why: "ctr 1.6 lacks the flag", do: func(p *probe) {
		p.sh("ls /dev; grep ^CapEff /proc/self/status", "--privileged", "--privileged-without-host-devices")
	}},
	{name: "cap-add", do: func(p *probe) {
		p.sh("grep ^Cap /proc/self/status; hostname changed; hostname", "--cap-add", "CAP_SYS_ADMIN")
	}},
	{name: "cap-drop", do: func(p *probe) {
		p.sh("grep ^Cap /proc/self/status; touch /x; chown 1:1 /x", "--cap-drop", "CAP_CHOWN", "--cap-drop", "CAP_NET_RAW")
	}},
	{name: "allow-new-privs", do: func(p *probe) { p.sh("grep ^NoNewPrivs /proc/self/status", "--allow-new-privs") }},
	{name: "seccomp-default", do: func(p *probe) {
		p.sh("grep ^Seccomp: /proc/self/status; unshare -m true; mount -t tmpfs x /mnt", "--seccomp")
	}},
	{name: "seccomp-profile", do: func(p *probe) {
		profile := p.file("seccomp.json", `{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["mkdir","mkdirat"],"action":"SCMP_ACT_ERRNO","errnoRet":95}]}`, 0o644)
		p.sh("grep ^Seccomp: /proc/self/status; mkdir /no; touch /yes && echo touched", "--seccomp", "--seccomp-profile", profile)
	}},
	{name: "seccomp-kill", do: func(p *probe) {
		profile := p.file("seccomp.json", `{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["mkdir","mkdirat"],"action":"SCMP_ACT_KILL_PROCESS"}]}`, 0o644)
		p.run([]string{"--seccomp", "--seccomp-profile", profile}, "mkdir", "/no")
	}},
	{name: "user-namespace", do: func(p *probe) {
		p.sh("id -u; cat /proc/self/uid_map /proc/self/gid_map; touch /x && ls -ln /x | awk '{print $3, $4}'; mount -t tmpfs x /mnt",
			"--uidmap", "0:200000:65536", "--gidmap", "0:200000:65536")
	}},
}

// insideNamespaces records which namespaces are not the host's.
func insideNamespaces(p *probe) {
	out := p.quiet(p.runArgs([]string{"--rm"}, "sh", "-c", "cd /proc/self/ns; for n in *; do echo $n $(readlink $n); done")...)
	for line := range strings.Lines(out.Stdout) {
		name, inside, _ := strings.Cut(strings.TrimSpace(line), " ")
		outside, err := os.Readlink("/proc/self/ns/" + name)
		p.record("%s: own %v, %v", name, inside != outside, err)
	}
}

// withNamespace joins the network and IPC namespaces of another container.
func withNamespace(p *probe) {
	p.sleeper()
	first := p.pid()
	p.id += "-second"
	p.ids = append(p.ids, p.id)
	out := p.quiet(p.runArgs([]string{"--rm", "--with-ns", fmt.Sprintf("network:/proc/%s/ns/net", first), "--with-ns", fmt.Sprintf("ipc:/proc/%s/ns/ipc", first)},
		"sh", "-c", "readlink /proc/self/ns/net; readlink /proc/self/ns/ipc; readlink /proc/self/ns/uts")...)
	p.record("exit %d", out.Code)
	seen := strings.Fields(out.Stdout)
	for i, name := range []string{"net", "ipc", "uts"} {
		want, _ := os.Readlink(fmt.Sprintf("/proc/%s/ns/%s", first, name))
		p.record("%s shared: %v", name, i < len(seen) && seen[i] == want)
	}
}
