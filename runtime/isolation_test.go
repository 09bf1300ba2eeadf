// SPDX-License-Identifier: Apache-2.0

package runtime

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
)

func TestSpecFields(t *testing.T) {
	seven := int(7)
	umask := uint32(0o27)
	cases := []struct {
		name   string
		change func(*specs.Spec)
		script string
		want   string
	}{
		{"hostname", func(s *specs.Spec) { s.Hostname = "moby" }, "hostname", "moby\n"},
		{"user and groups", func(s *specs.Spec) {
			s.Process.User = specs.User{UID: 1000, GID: 1001, AdditionalGids: []uint32{5, 6}}
		}, "id -u; id -g; grep Groups /proc/self/status", "1000\n1001\nGroups:\t5 6 \n"},
		{"umask", func(s *specs.Spec) { s.Process.User.Umask = &umask }, "umask", "0027\n"},
		{"cwd is made", func(s *specs.Spec) { s.Process.Cwd = "/new/dir" }, "pwd", "/new/dir\n"},
		{"rlimits", func(s *specs.Spec) {
			s.Process.Rlimits = []specs.POSIXRlimit{{Type: "RLIMIT_NOFILE", Hard: 300, Soft: 200}, {Type: "RLIMIT_CORE", Hard: 0, Soft: 0}}
		}, "ulimit -Sn; ulimit -Hn; ulimit -c", "200\n300\n0\n"},
		{"oom score", func(s *specs.Spec) { s.Process.OOMScoreAdj = &seven }, "cat /proc/self/oom_score_adj", "7\n"},
		{"no new privileges", func(s *specs.Spec) { s.Process.NoNewPrivileges = true }, "grep NoNewPrivs /proc/self/status", "NoNewPrivs:\t1\n"},
		{"new privileges", func(s *specs.Spec) { s.Process.NoNewPrivileges = false }, "grep NoNewPrivs /proc/self/status", "NoNewPrivs:\t0\n"},
		{"capabilities", func(s *specs.Spec) {
			caps := []string{"CAP_CHOWN", "CAP_KILL"}
			s.Process.Capabilities = &specs.LinuxCapabilities{Bounding: caps, Permitted: caps, Effective: caps}
		}, "grep -E 'Cap(Eff|Bnd)' /proc/self/status", "CapEff:\t0000000000000021\nCapBnd:\t0000000000000021\n"},
		{"masked", func(s *specs.Spec) { s.Linux.MaskedPaths = []string{"/proc/version"} }, "wc -c < /proc/version", "0\n"},
		{"read-only path", func(s *specs.Spec) { s.Linux.ReadonlyPaths = []string{"/proc/sys"} }, "echo x > /proc/sys/kernel/hostname || echo no", "sh: can't create /proc/sys/kernel/hostname: Read-only file system\nno\n"},
		{"read-only root", func(s *specs.Spec) { s.Root.Readonly = true }, "touch /x 2>/dev/null || : > /x || echo no", "sh: can't create /x: Read-only file system\n"},
		{"writable root", func(s *specs.Spec) { s.Root.Readonly = false }, ": > /x && echo yes", "yes\n"},
		{"sysctl", func(s *specs.Spec) { s.Linux.Sysctl = map[string]string{"net.ipv4.ip_forward": "1"} }, "cat /proc/sys/net/ipv4/ip_forward", "1\n"},
		{"device", func(s *specs.Spec) {
			mode := os.FileMode(0o640)
			s.Linux.Devices = []specs.LinuxDevice{{Path: "/dev/mig-null", Type: "c", Major: 1, Minor: 3, FileMode: &mode}}
		}, "stat -c '%t:%T %a' /dev/mig-null", "1:3 640\n"},
		{"private network", func(*specs.Spec) {}, "ls /sys/class/net", "lo\n"},
		{"time offset", func(s *specs.Spec) {
			s.Linux.Namespaces = append(s.Linux.Namespaces, specs.LinuxNamespace{Type: specs.TimeNamespace})
			s.Linux.TimeOffsets = map[string]specs.LinuxTimeOffset{"boottime": {Secs: 1000000000}}
		}, "awk '{ print ($1 > 1000000000) }' /proc/uptime", "1\n"},
		{"cgroup namespace", func(s *specs.Spec) {
			s.Linux.Namespaces = append(s.Linux.Namespaces, specs.LinuxNamespace{Type: specs.CgroupNamespace})
		}, "grep -c mig-runtime-test /proc/self/cgroup", "0\n"},
		{"personality", func(s *specs.Spec) { s.Linux.Personality = &specs.LinuxPersonality{Domain: specs.PerLinux32} }, "cat /proc/self/personality", "00000008\n"},
		{"relative bind", func(s *specs.Spec) { s.Mounts = append(s.Mounts, bind("shared", "/tmp", "ro")) }, "cat /tmp/note", "from the bundle\n"},
		{"seccomp", func(s *specs.Spec) { s.Linux.Seccomp = denyMkdir() }, "mkdir /tmp/d; grep Seccomp: /proc/self/status", "mkdir: can't create directory '/tmp/d': Inappropriate ioctl for device\nSeccomp:\t2\n"},
		{"scheduler", func(s *specs.Spec) {
			s.Process.Scheduler = &specs.Scheduler{Policy: specs.SchedBatch, Nice: 5}
		}, "awk '{ print $41, $19 }' /proc/self/stat", "3 5\n"},
		{"io priority", func(s *specs.Spec) {
			s.Process.IOPriority = &specs.LinuxIOPriority{Class: specs.IOPRIO_CLASS_BE, Priority: 6}
		}, "busybox ionice -p $$", "best-effort: prio 6\n"},
		{"cpu affinity of the init", func(s *specs.Spec) { s.Linux.Resources.CPU = &specs.LinuxCPU{Cpus: "0"} }, "nproc", "1\n"},
	}
	s := newSandbox(t)
	must(t, os.MkdirAll(filepath.Join(s.bundle, "shared"), 0o755))
	must(t, os.WriteFile(filepath.Join(s.bundle, "shared/note"), []byte("from the bundle\n"), 0o644))
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			sub := *s
			sub.t = t
			id := "field-" + strings.ReplaceAll(c.name, " ", "-")
			spec := s.spec(id, sh(c.script)...)
			c.change(spec)
			out, _ := sub.run(id, spec)
			want(t, c.script, out, c.want)
		})
	}
}

// denyMkdir answers mkdir with ENOTTY, an errno that nothing else gives.
func denyMkdir() *specs.LinuxSeccomp {
	enotty := uint(25)
	return &specs.LinuxSeccomp{
		DefaultAction: specs.ActAllow,
		Architectures: []specs.Arch{specs.ArchX86_64},
		Syscalls:      []specs.LinuxSyscall{{Names: []string{"mkdir", "mkdirat"}, Action: specs.ActErrno, ErrnoRet: &enotty}},
	}
}

func TestUserNamespace(t *testing.T) {
	s := newSandbox(t)
	spec := s.spec("userns", "sleep", "1000")
	withUserns(spec)
	must(t, os.Chown(filepath.Join(s.bundle, "rootfs"), 100000, 100000))
	c := s.start(s.options("userns", spec))
	awaitProgram(t, c.Init())
	st, err := os.Stat("/proc/" + pidString(c))
	must(t, err)
	want(t, "owner seen from outside", ownerOf(st), uint32(100000))

	p := process(spec, sh("id -u; cat /proc/self/uid_map")...)
	p.User.UID, p.User.GID = 33, 33
	out, status := s.exec(c, p)
	want(t, "status", status, 0)
	want(t, "ids inside", strings.Join(strings.Fields(out), " "), "33 0 100000 65536")
}

// TestIDMappedMount: a file of root's on the host is root's in the container,
// though root is uid 100000 there.
func TestIDMappedMount(t *testing.T) {
	s := newSandbox(t)
	must(t, os.MkdirAll(filepath.Join(s.bundle, "shared"), 0o755))
	must(t, os.WriteFile(filepath.Join(s.bundle, "shared/note"), nil, 0o600))
	spec := s.spec("idmap", "stat", "-c", "%u:%g", "/tmp/note")
	withUserns(spec)
	m := bind("shared", "/tmp")
	m.UIDMappings, m.GIDMappings = spec.Linux.UIDMappings, spec.Linux.GIDMappings
	spec.Mounts = append(spec.Mounts, m)
	out, status := s.run("idmap", spec)
	want(t, "status", status, 0)
	want(t, "owner", out, "0:0\n")
}

func TestPropagation(t *testing.T) {
	s := newSandbox(t)
	spec := s.spec("prop", "sh", "-c", "awk '$5==\"/tmp\" { print $7 ~ /^master/ }' /proc/self/mountinfo")
	spec.Mounts = append(spec.Mounts, bind("/dev/shm", "/tmp", "rslave"))
	spec.Linux.RootfsPropagation = "rslave"
	out, status := s.run("prop", spec)
	want(t, "status", status, 0)
	// Only a mount that is shared on the host can be a slave here.
	shared, err := os.ReadFile("/proc/self/mountinfo")
	must(t, err)
	isShared := "0\n"
	for line := range strings.Lines(string(shared)) {
		f := strings.Fields(line)
		if f[4] == "/dev/shm" && strings.HasPrefix(f[6], "shared:") {
			isShared = "1\n"
		}
	}
	want(t, "slave", out, isShared)
}
