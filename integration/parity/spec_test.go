// SPDX-License-Identifier: Apache-2.0

package parity

import (
	"path/filepath"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// specOperations use what ctr has no flags for, by a configuration file.
var specOperations = []operation{
	{name: "spec-rlimits", do: specRun("ulimit -a", func(s *specs.Spec) {
		s.Process.Rlimits = []specs.POSIXRlimit{
			{Type: "RLIMIT_NOFILE", Soft: 64, Hard: 128}, {Type: "RLIMIT_CORE", Soft: 0, Hard: 0},
			{Type: "RLIMIT_NPROC", Soft: 50, Hard: 60}, {Type: "RLIMIT_STACK", Soft: 1 << 20, Hard: 1 << 21},
		}
	})},
	{name: "spec-user", do: specRun("id; umask; env | grep ^HOME", func(s *specs.Spec) {
		umask := uint32(0o027)
		s.Process.User = specs.User{UID: 1000, GID: 1000, AdditionalGids: []uint32{44, 4242}, Umask: &umask}
	})},
	{name: "spec-sysctl", do: specRun("cat /proc/sys/net/ipv4/ip_forward /proc/sys/kernel/shm_rmid_forced /proc/sys/net/ipv4/ping_group_range", func(s *specs.Spec) {
		s.Linux.Sysctl = map[string]string{"net.ipv4.ip_forward": "1", "kernel.shm_rmid_forced": "1", "net.ipv4.ping_group_range": "0 100"}
	})},
	{name: "spec-sysctl-refused", do: specFails("kernel.panic", func(s *specs.Spec) {
		s.Linux.Sysctl = map[string]string{"kernel.panic": "1"}
	})},
	{name: "spec-paths", do: specRun("ls /var/lib | wc -l; cat /etc/group; touch /etc/new", func(s *specs.Spec) {
		s.Linux.MaskedPaths = append(s.Linux.MaskedPaths, "/etc/group", "/var/lib")
		s.Linux.ReadonlyPaths = append(s.Linux.ReadonlyPaths, "/etc")
	})},
	{name: "spec-oom-score", do: specRun("cat /proc/self/oom_score_adj", func(s *specs.Spec) {
		score := 321
		s.Process.OOMScoreAdj = &score
	})},
	{name: "spec-domainname", do: specRun("cat /proc/sys/kernel/domainname; hostname", func(s *specs.Spec) {
		s.Hostname, s.Domainname = "h", "example.test"
	})},
	{name: "spec-pids-limit", do: specRun("for i in 1 2 3 4 5 6 7 8 9; do sleep 1 & done; echo unreached", func(s *specs.Spec) {
		limit := int64(5)
		s.Linux.Resources.Pids = &specs.LinuxPids{Limit: &limit}
	})},
	{name: "spec-time-namespace", do: specRun("awk '{ print ($1 > 1000000) }' /proc/uptime; cat /proc/self/timens_offsets", func(s *specs.Spec) {
		s.Linux.Namespaces = append(s.Linux.Namespaces, specs.LinuxNamespace{Type: specs.TimeNamespace})
		s.Linux.TimeOffsets = map[string]specs.LinuxTimeOffset{"boottime": {Secs: 1000000}, "monotonic": {Secs: 1000000}}
	})},
	{name: "spec-cgroup-namespace", do: specRun("cut -d: -f2- /proc/self/cgroup | sort | uniq | head -3", func(s *specs.Spec) {
		s.Linux.Namespaces = append(s.Linux.Namespaces, specs.LinuxNamespace{Type: specs.CgroupNamespace})
	})},
	{name: "spec-personality", do: specRun("uname -m", func(s *specs.Spec) {
		s.Linux.Personality = &specs.LinuxPersonality{Domain: specs.PerLinux32}
	})},
	{name: "spec-ambient", do: specRun("grep ^Cap /proc/self/status", func(s *specs.Spec) {
		s.Process.User.UID = 1000
		caps := []string{"CAP_NET_BIND_SERVICE", "CAP_KILL"}
		s.Process.Capabilities = &specs.LinuxCapabilities{Bounding: caps, Effective: caps, Permitted: caps, Inheritable: caps, Ambient: caps[:1]}
	})},
	{name: "spec-mounts", do: specRun("grep -E ' (/a|/b|/c) ' /proc/self/mountinfo | cut -d' ' -f5-6; ls -l /a /b", func(s *specs.Spec) {
		s.Mounts = append(s.Mounts,
			specs.Mount{Destination: "/a", Type: "tmpfs", Source: "tmpfs", Options: []string{"nosuid", "noexec", "size=64k"}},
			specs.Mount{Destination: "/b", Type: "bind", Source: "/usr/share/common-licenses", Options: []string{"rbind", "rro"}},
			specs.Mount{Destination: "/c", Type: "tmpfs", Source: "tmpfs", Options: []string{"ro", "nodev", "strictatime"}})
	})},
	{name: "spec-devices", do: specRun("ls -l /dev/mine | awk '{ print $1, $3, $4, $5, $6 }'; head -c3 /dev/mine | wc -c", func(s *specs.Spec) {
		mode, id := defaultMode, uint32(7)
		s.Linux.Devices = append(s.Linux.Devices, specs.LinuxDevice{Path: "/dev/mine", Type: "c", Major: 1, Minor: 5, FileMode: &mode, UID: &id, GID: &id})
	})},
	{name: "spec-hooks", do: specHooks},
	{name: "spec-hook-fails", do: func(p *probe) {
		hook := p.file("hook", "#!/bin/sh\necho no thanks >&2\nexit 3\n", 0o755)
		specFails("hook", func(s *specs.Spec) { s.Hooks = &specs.Hooks{CreateRuntime: []specs.Hook{{Path: hook}}} })(p)
	}},
	{name: "spec-info", do: func(p *probe) {
		p.sleeper("--env", "A=b")
		info := p.info()
		p.record("%s %s %s %s\n%s", info.ID, info.Image, info.Snapshotter, info.SnapshotKey, info.Spec)
	}},
}

// specRun returns an operation: run a script under an edited spec.
func specRun(script string, edit func(*specs.Spec)) func(*probe) {
	return func(p *probe) {
		p.specRun(script, edit)
	}
}

func (p *probe) specRun(script string, edit func(*specs.Spec)) {
	p.t.Helper()
	p.ctr(p.specArgs(script, edit)...)
}

// specFails returns an operation that must fail with the cause named.
func specFails(cause string, edit func(*specs.Spec)) func(*probe) {
	return func(p *probe) { p.fails(cause, p.specArgs("true", edit)...) }
}

// specArgs are ctr's arguments for a script under an edited spec, on a root
// file system of its own: with --config ctr takes no image.
func (p *probe) specArgs(script string, edit func(*specs.Spec)) []string {
	p.t.Helper()
	root := p.rootfs()
	flags := p.withSpec(func(s *specs.Spec) {
		s.Root.Path = root
		s.Process.Args = []string{"sh", "-c", script}
		s.Process.Env = []string{"PATH=/bin"}
		s.Process.Terminal = false
		edit(s)
	})
	return append(append([]string{"run", "--rm", "--runtime", p.runtime}, flags...), p.id)
}

// specHooks records in which order and with which state the hooks run.
func specHooks(p *probe) {
	log := filepath.Join(p.dir, "log")
	hook := p.file("hook", `#!/bin/sh
state=$(cat)
for word in $(echo "$state" | tr '{},' '\n\n\n' | grep -E '"(id|status)":' | sort); do set -- "$@" "$word"; done
echo "$@" >>`+log+"\n", 0o755)
	one := func(name string) []specs.Hook {
		return []specs.Hook{{Path: hook, Args: []string{"hook", name}, Env: []string{"PATH=/bin:/usr/bin"}}}
	}
	p.specRun("exit 6", func(s *specs.Spec) {
		//lint:ignore SA1019 prestart is deprecated, and still what many runtimes' hooks use
		s.Hooks = &specs.Hooks{Prestart: one("prestart"), CreateRuntime: one("createRuntime"), Poststart: one("poststart"), Poststop: one("poststop")}
	})
	p.content(log, "poststop")
}
