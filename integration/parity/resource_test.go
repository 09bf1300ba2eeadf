// SPDX-License-Identifier: Apache-2.0

package parity

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/io-mig/mig/integration/internal/daemon"
)

// resourceOperations set limits and read what the kernel made of them.
var resourceOperations = []operation{
	{name: "memory-limit", do: func(p *probe) {
		p.sleeper("--memory-limit", "67108864")
		p.cgroup("memory", "memory.limit_in_bytes", "memory.max")
	}},
	{name: "memory-limit-oom", chance: "the kernel ends another process, too, if the first has not given its memory back in time", do: func(p *probe) {
		// Which process the kernel ends is a matter of pages that are there by
		// chance, unless one is named.
		p.sh("head -c 100000000 /dev/zero | { echo 1000 >/proc/self/oom_score_adj; exec tail; } | wc -c; echo survived $?", "--memory-limit", "16777216")
	}},
	{name: "memory-limit-oom-init", do: func(p *probe) {
		p.run([]string{"--memory-limit", "16777216"}, "sh", "-c", "exec tail /dev/zero")
	}},
	{name: "cpus", do: func(p *probe) {
		p.sleeper("--cpus", "0.5")
		p.cgroup("cpu", "cpu.cfs_quota_us", "cpu.max")
		p.cgroup("cpu", "cpu.cfs_period_us", "cpu.max")
	}},
	{name: "cpu-quota", do: func(p *probe) {
		p.sleeper("--cpu-quota", "30000", "--cpu-period", "60000")
		p.cgroup("cpu", "cpu.cfs_quota_us", "cpu.max")
		p.cgroup("cpu", "cpu.cfs_period_us", "cpu.max")
	}},
	{name: "cpu-shares", do: func(p *probe) {
		p.sleeper("--cpu-shares", "300")
		p.cgroup("cpu", "cpu.shares", "cpu.weight")
	}},
	{name: "cpuset", only: daemon.V24, why: "ctr 1.6 has no --cpuset-cpus", do: func(p *probe) {
		p.sleeper("--cpuset-cpus", "0", "--cpuset-mems", "0")
		p.cgroup("cpuset", "cpuset.cpus", "cpuset.cpus")
		p.cgroup("cpuset", "cpuset.mems", "cpuset.mems")
	}},
	{name: "rlimit-nofile", only: daemon.V24, why: "ctr 1.6 has no --rlimit-nofile", do: func(p *probe) {
		p.sh("ulimit -Sn; ulimit -Hn", "--rlimit-nofile", "100:200")
	}},
	{name: "device", do: func(p *probe) {
		p.sh("ls -l /dev/loop-control | cut -c1-10; head -c0 /dev/loop-control && echo opened", "--device", "/dev/loop-control")
	}},
	{name: "cgroup-path", do: func(p *probe) {
		p.sleeper("--cgroup", "/"+p.host.Namespace+"/custom")
		content, err := os.ReadFile("/proc/" + p.pid() + "/cgroup")
		p.record("%v\n%s", err, withoutIDs(string(content)))
	}},
	{name: "metrics-fields", do: func(p *probe) {
		p.sleeper("--memory-limit", "67108864")
		p.record("%s", strings.Join(p.metrics(), "\n"))
	}},
	{name: "metrics-table", do: func(p *probe) {
		p.sleeper()
		for line := range strings.Lines(p.must("tasks", "metrics", p.id).Stdout) {
			if fields := strings.Fields(line); len(fields) > 0 {
				p.record("%s", fields[0])
			}
		}
	}},
}

// withoutIDs takes the hierarchy numbers off lines of /proc/PID/cgroup.
func withoutIDs(cgroup string) string {
	var lines []string
	for line := range strings.Lines(cgroup) {
		_, rest, _ := strings.Cut(line, ":")
		lines = append(lines, rest)
	}
	return strings.Join(lines, "")
}

// cgroup records a value of the container's cgroup, in v1 or in v2.
func (p *probe) cgroup(controller, v1, v2 string) {
	p.t.Helper()
	for _, path := range []string{
		filepath.Join("/sys/fs/cgroup", controller, p.host.Namespace, p.id, v1),
		filepath.Join("/sys/fs/cgroup", p.host.Namespace, p.id, v2),
	} {
		if value, err := os.ReadFile(path); err == nil {
			p.record("%s: %s", filepath.Base(path), value)
			return
		}
	}
	p.t.Errorf("on %s: no %s of %s anywhere", p.runtime, v1, p.id)
}

// oftenZero are metrics that depend on when a process is looked at.
var oftenZero = []string{".cpu.usage.kernel", ".cpu.usage.user", ".memory.active_anon", ".memory.total_active_anon"}

// metrics lists the names of what `ctr tasks metrics` reports, without their
// values.
func (p *probe) metrics() []string {
	p.t.Helper()
	var decoded any
	result := p.must("tasks", "metrics", "--format", "json", p.id)
	if err := json.Unmarshal([]byte(result.Stdout), &decoded); err != nil {
		p.t.Errorf("on %s: metrics: %v", p.runtime, err)
	}
	names := map[string]bool{}
	fieldNames("", decoded, names)
	var sorted []string
	for name := range names {
		// Left out of the JSON where they are zero, as of a process that slept.
		if slices.ContainsFunc(oftenZero, func(prefix string) bool { return strings.HasPrefix(name, prefix) }) {
			continue
		}
		sorted = append(sorted, name)
	}
	slices.Sort(sorted)
	return sorted
}

// fieldNames collects the paths of a JSON value's fields. Elements of a list
// share one path: their number depends on the machine's activity.
func fieldNames(path string, value any, names map[string]bool) {
	switch value := value.(type) {
	case map[string]any:
		for key, inner := range value {
			fieldNames(path+"."+key, inner, names)
		}
	case []any:
		for _, inner := range value {
			fieldNames(path+"[]", inner, names)
		}
	default:
		names[fmt.Sprintf("%s %T", path, value)] = true
	}
}
