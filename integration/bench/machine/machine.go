// SPDX-License-Identifier: Apache-2.0

// Package machine describes the machine that was measured on.
package machine

import (
	"bufio"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Machine is what figures depend on. Empty fields are what the kernel does not
// tell.
type Machine struct {
	System     string   `json:"system"`
	Kernel     string   `json:"kernel"`
	CPU        string   `json:"cpu"`
	Cores      int      `json:"cores"`
	Hypervisor bool     `json:"hypervisor"`
	MemoryMB   int      `json:"memory_mb"`
	Governor   string   `json:"governor,omitempty"`
	HugePages  string   `json:"transparent_hugepages,omitempty"`
	Cgroups    string   `json:"cgroups"`
	LoadBefore string   `json:"load_before"`
	LoadAfter  string   `json:"load_after,omitempty"`
	Notes      []string `json:"notes,omitempty"`
}

// Describe looks at this machine.
func Describe() Machine {
	m := Machine{
		System: value("/etc/os-release", "PRETTY_NAME", "="), CPU: value("/proc/cpuinfo", "model name", ":"),
		Cores: runtime.NumCPU(), Governor: line("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor"),
		HugePages: chosen(line("/sys/kernel/mm/transparent_hugepage/enabled")), LoadBefore: Load(), Cgroups: cgroups(),
	}
	var u unix.Utsname
	if unix.Uname(&u) == nil {
		m.Kernel = unix.ByteSliceToString(u.Release[:])
	}
	total := strings.TrimSuffix(value("/proc/meminfo", "MemTotal", ":"), " kB")
	if kb, err := strconv.Atoi(total); err == nil {
		m.MemoryMB = kb / 1024
	}
	m.Hypervisor = strings.Contains(" "+value("/proc/cpuinfo", "flags", ":")+" ", " hypervisor ")
	return m
}

// Load is the three load averages.
func Load() string {
	fields := strings.Fields(line("/proc/loadavg"))
	return strings.Join(fields[:min(3, len(fields))], " ")
}

// IsTmpfs tells whether a path is on a tmpfs.
func IsTmpfs(path string) bool {
	var st unix.Statfs_t
	return unix.Statfs(path, &st) == nil && st.Type == unix.TMPFS_MAGIC
}

func cgroups() string {
	var st unix.Statfs_t
	if unix.Statfs("/sys/fs/cgroup", &st) == nil && st.Type == unix.CGROUP2_SUPER_MAGIC {
		return "v2"
	}
	if _, err := os.Stat("/sys/fs/cgroup/unified"); err == nil {
		return "v1 (hybrid)"
	}
	return "v1"
}

func line(path string) string {
	b, _ := os.ReadFile(filepath.Clean(path))
	return strings.TrimSpace(string(b))
}

// value finds "key SEPARATOR value" and unquotes the value.
func value(path, key, separator string) string {
	f, err := os.Open(path)
	if err != nil {
		return ""
	}
	defer f.Close()
	for s := bufio.NewScanner(f); s.Scan(); {
		k, v, ok := strings.Cut(s.Text(), separator)
		if ok && strings.TrimSpace(k) == key {
			return strings.Trim(strings.TrimSpace(v), `"`)
		}
	}
	return ""
}

// chosen is the word in brackets.
func chosen(s string) string {
	_, rest, ok := strings.Cut(s, "[")
	if !ok {
		return s
	}
	word, _, _ := strings.Cut(rest, "]")
	return word
}
