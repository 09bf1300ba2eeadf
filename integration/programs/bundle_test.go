// SPDX-License-Identifier: Apache-2.0

package programs

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"sync/atomic"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/io-mig/mig/integration/bench/driver"
)

// serial numbers bundles and images.
var serial atomic.Int64

// container makes the bundle of a program that is to run as u.
func (h *harness) container(t *testing.T, p program, u user) *driver.Container {
	t.Helper()
	return h.containerWith(t, p, u, func(*specs.Spec) {})
}

// containerWith is the same with a change of the spec.
func (h *harness) containerWith(t *testing.T, p program, u user, change func(*specs.Spec)) *driver.Container {
	t.Helper()
	bundles := h.bundles
	bundles.Edit = func(spec *specs.Spec) {
		edit(spec, p, u)
		change(spec)
	}
	c, err := bundles.New("p"+strconv.FormatInt(serial.Add(1), 10), []string{driver.ProgramPath, p.name})
	if err != nil {
		t.Fatal(err)
	}
	own(t, filepath.Join(c.Bundle, "rootfs"), u)
	h.output(t, c)
	return c
}

// strategy is how a user's programs are saved, empty for mig's own choice: those of
// the unprivileged user with early rounds. MIG_PROGRAM_STRATEGY overrules it.
func strategy(u user) string {
	if s := os.Getenv("MIG_PROGRAM_STRATEGY"); s != "" {
		return s
	}
	if u == asUser {
		return "pre-copy"
	}
	return ""
}

// edit makes runc's default spec the one that programs are to find.
func edit(spec *specs.Spec, p program, u user) {
	if s := strategy(u); s != "" {
		spec.Annotations = map[string]string{"io.mig/checkpoint-strategy": s}
	}
	// A network of its own, and no session keyring that an image could not name.
	spec.Linux.Namespaces = append(spec.Linux.Namespaces, specs.LinuxNamespace{Type: specs.NetworkNamespace})
	spec.Process.User = specs.User{UID: u.uid, GID: u.uid}
	spec.Process.Cwd = "/tmp"
	if u.mapped {
		ids := []specs.LinuxIDMapping{{ContainerID: 0, HostID: hostID, Size: 65536}}
		spec.Linux.Namespaces = append(spec.Linux.Namespaces, specs.LinuxNamespace{Type: specs.UserNamespace})
		spec.Linux.UIDMappings, spec.Linux.GIDMappings = ids, ids
	}
	if p.needs&needsAllCaps != 0 {
		all := allCapabilities()
		spec.Process.Capabilities = &specs.LinuxCapabilities{Bounding: all, Effective: all, Permitted: all, Inheritable: all}
		spec.Process.NoNewPrivileges = false
	}
	if p.needs&needsCgroups != 0 {
		writableCgroups(spec)
	}
	if p.needs&needsHugeSegments != 0 && !u.mapped {
		// In a user namespace it would not count; there it is the group's right.
		addCapability(spec.Process.Capabilities, "CAP_IPC_LOCK")
	}
	if p.needs&needsHugeMount != 0 {
		spec.Mounts = append(spec.Mounts, specs.Mount{Destination: "/huge", Type: "hugetlbfs", Source: "hugetlbfs", Options: []string{"pagesize=2M", "mode=1777", "size=16M"}})
	}
	spec.Process.Rlimits = []specs.POSIXRlimit{{Type: "RLIMIT_NOFILE", Soft: 1024, Hard: 4096}}
}

// writableCgroups lets a container make cgroups below its own, of which it sees
// nothing else.
func writableCgroups(spec *specs.Spec) {
	spec.Linux.Namespaces = slices.DeleteFunc(spec.Linux.Namespaces, func(n specs.LinuxNamespace) bool { return n.Type == specs.CgroupNamespace })
	spec.Linux.Namespaces = append(spec.Linux.Namespaces, specs.LinuxNamespace{Type: specs.CgroupNamespace})
	for i := range spec.Mounts {
		if m := &spec.Mounts[i]; m.Type == "cgroup" {
			m.Options = slices.DeleteFunc(m.Options, func(o string) bool { return o == "ro" })
		}
	}
}

// addCapability gives a program a capability, also an unprivileged user's.
func addCapability(c *specs.LinuxCapabilities, name string) {
	for _, set := range []*[]string{&c.Bounding, &c.Effective, &c.Permitted, &c.Inheritable, &c.Ambient} {
		if !slices.Contains(*set, name) {
			*set = append(*set, name)
		}
	}
}

func allCapabilities() []string {
	var all []string
	for _, name := range []string{
		"CHOWN", "DAC_OVERRIDE", "DAC_READ_SEARCH", "FOWNER", "FSETID", "KILL", "SETGID", "SETUID", "SETPCAP", "LINUX_IMMUTABLE",
		"NET_BIND_SERVICE", "NET_BROADCAST", "NET_ADMIN", "NET_RAW", "IPC_LOCK", "IPC_OWNER", "SYS_RAWIO", "SYS_CHROOT", "SYS_PTRACE",
		"SYS_PACCT", "SYS_ADMIN", "SYS_NICE", "SYS_TTY_CONFIG", "MKNOD", "LEASE", "AUDIT_WRITE", "SETFCAP", "SYSLOG", "PERFMON", "BPF",
		"CHECKPOINT_RESTORE",
	} {
		all = append(all, "CAP_"+name)
	}
	return all
}

// successor makes the bundle of a container that is to be restored: the same
// spec and a copy of the root's content, as `--rw` carries it.
func (h *harness) successor(t *testing.T, c *driver.Container) *driver.Container {
	t.Helper()
	id := "p" + strconv.FormatInt(serial.Add(1), 10)
	next := &driver.Container{ID: id, Bundle: filepath.Join(h.bundles.Dir, id)}
	if err := os.Mkdir(next.Bundle, 0o711); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("cp", "-a", "--sparse=always", filepath.Join(c.Bundle, "rootfs"), next.Bundle).CombinedOutput(); err != nil {
		t.Fatalf("copy the root: %v: %s", err, out)
	}
	raw, err := os.ReadFile(filepath.Join(c.Bundle, "config.json"))
	if err != nil {
		t.Fatal(err)
	}
	var spec specs.Spec
	if err := json.Unmarshal(raw, &spec); err != nil {
		t.Fatal(err)
	}
	spec.Linux.CgroupsPath = filepath.Join(h.bundles.Cgroup, id)
	if raw, err = json.Marshal(&spec); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(next.Bundle, "config.json"), raw, 0o600); err != nil {
		t.Fatal(err)
	}
	h.output(t, next)
	return next
}

// output gives a container a file for what it says.
func (h *harness) output(t *testing.T, c *driver.Container) {
	t.Helper()
	path := outputOf(c)
	if err := os.WriteFile(path, nil, 0o666); err != nil {
		t.Fatal(err)
	}
	c.Stdout = "file://" + path
}

func outputOf(c *driver.Container) string { return filepath.Join(c.Bundle, "output") }

// own gives a root to the user of its container.
func own(t *testing.T, root string, u user) {
	t.Helper()
	base := 0
	if u.mapped {
		base = hostID
	}
	if out, err := exec.Command("chown", "-R", fmt.Sprint(base, ":", base), root).CombinedOutput(); err != nil {
		t.Fatalf("chown: %v: %s", err, out)
	}
	if err := os.Chmod(filepath.Join(root, "tmp"), 0o1777); err != nil {
		t.Fatal(err)
	}
}
