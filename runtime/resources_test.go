// SPDX-License-Identifier: Apache-2.0

package runtime

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"
)

func ptr[T any](v T) *T { return &v }

func TestUpdateAndStats(t *testing.T) {
	s := newSandbox(t)
	spec := s.spec("limits", "sleep", "1000")
	spec.Linux.Resources.Memory = &specs.LinuxMemory{Limit: ptr(int64(64 << 20))}
	spec.Linux.Resources.CPU = &specs.LinuxCPU{Shares: ptr(uint64(512)), Quota: ptr(int64(50000)), Period: ptr(uint64(100000))}
	c := s.start(s.options("limits", spec))
	awaitProgram(t, c.Init()) // Go's init counts more tasks
	read := func(controller, file string) string {
		data, err := os.ReadFile(filepath.Join(c.CgroupPaths()[controller], file))
		must(t, err)
		return strings.TrimSpace(string(data))
	}
	want(t, "memory limit", read("memory", "memory.limit_in_bytes"), "67108864")
	must(t, c.Update(&specs.LinuxResources{
		Memory: &specs.LinuxMemory{Limit: ptr(int64(96 << 20))},
		CPU:    &specs.LinuxCPU{Quota: ptr(int64(70000))},
		Pids:   &specs.LinuxPids{Limit: ptr(int64(33))},
	}))
	want(t, "memory limit", read("memory", "memory.limit_in_bytes"), "100663296")
	want(t, "quota", read("cpu", "cpu.cfs_quota_us"), "70000")
	want(t, "period, not given", read("cpu", "cpu.cfs_period_us"), "100000")
	want(t, "shares, not given", read("cpu", "cpu.shares"), "512")
	want(t, "pids", read("pids", "pids.max"), "33")

	// The next update starts from these values, not from the spec's.
	must(t, c.Update(&specs.LinuxResources{CPU: &specs.LinuxCPU{Shares: ptr(uint64(256))}}))
	want(t, "memory limit", read("memory", "memory.limit_in_bytes"), "100663296")
	want(t, "shares", read("cpu", "cpu.shares"), "256")

	if err := c.Update(&specs.LinuxResources{CPU: &specs.LinuxCPU{Cpus: "4000"}}); err == nil {
		t.Error("a CPU that is not there was accepted")
	}
	want(t, "shares after a refusal", read("cpu", "cpu.shares"), "256")

	stats, err := c.Stats()
	must(t, err)
	want(t, "limit in the stats", stats.MemoryStats.Usage.Limit, uint64(96<<20))
	want(t, "processes in the stats", stats.PidsStats.Current, uint64(1))
	if stats.CpuStats.CpuUsage.TotalUsage == 0 {
		t.Error("the stats say that no CPU time was used")
	}
}

func TestOOM(t *testing.T) {
	s := newSandbox(t)
	// dd's buffer is larger than the limit.
	spec := s.spec("oom", sh("dd if=/dev/zero of=/dev/null bs=100M count=1; exit 0")...)
	spec.Linux.Resources.Memory = &specs.LinuxMemory{Limit: ptr(int64(32 << 20)), Swap: ptr(int64(32 << 20))}
	c := s.create(s.options("oom", spec))
	events, err := c.OOM(t.Context())
	must(t, err)
	select {
	case <-events:
		t.Fatal("an event before anything happened")
	case <-time.After(20 * time.Millisecond):
	}
	must(t, c.Start(t.Context()))
	select {
	case _, ok := <-events:
		want(t, "an event, not the end", ok, true)
	case <-time.After(20 * time.Second):
		t.Fatal("no OOM event")
	}
	waitDone(t, c.Init())
	s.destroy(c)
	select {
	case _, ok := <-events:
		for ok {
			_, ok = <-events
		}
	case <-time.After(10 * time.Second):
		t.Fatal("the channel outlives the cgroup")
	}
}

// TestOOMV2Files: the v2 watcher on files that a test writes.
func TestOOMV2Files(t *testing.T) {
	dir := t.TempDir()
	write := func(file, text string) {
		must(t, os.WriteFile(filepath.Join(dir, file), []byte(text), 0o600))
	}
	write("cgroup.events", "populated 1\nfrozen 0\n")
	write("memory.events", "low 0\noom 1\noom_kill 1\noom_group_kill 0\n")
	next, source, err := oomV2(dir)
	must(t, err)
	defer source.Close()
	step := func(what string, happens, ends bool) {
		t.Helper()
		happened, err := next()
		want(t, what, happened, happens)
		want(t, what+": ends", err != nil, ends)
	}
	// A rename would be another file: write in place, as the kernel does.
	change := func(file, from, to string) {
		path := filepath.Join(dir, file)
		data, err := os.ReadFile(path)
		must(t, err)
		f, err := os.OpenFile(path, os.O_WRONLY, 0)
		must(t, err)
		defer f.Close()
		_, err = f.WriteAt([]byte(strings.Replace(string(data), from, to, 1)), 0)
		must(t, err)
	}
	change("memory.events", "low 0", "low 7")
	step("another event", false, false)
	change("memory.events", "oom_kill 1", "oom_kill 2")
	step("a kill", true, false)
	change("cgroup.events", "populated 1", "populated 0")
	step("the end", false, true)
}

func TestFeatures(t *testing.T) {
	f := Features()
	for _, ns := range []string{"user", "time", "cgroup"} {
		found := false
		for _, have := range f.Linux.Namespaces {
			found = found || have == ns
		}
		want(t, ns+" namespace", found, true)
	}
	want(t, "idmap", *f.Linux.MountExtensions.IDMap.Enabled, true)
	want(t, "seccomp is built in (tag seccomp)", f.Linux.Seccomp != nil && *f.Linux.Seccomp.Enabled, true)
	rro := false
	for _, o := range f.MountOptions {
		rro = rro || o == "rro"
	}
	want(t, "rro", rro, true)
}
