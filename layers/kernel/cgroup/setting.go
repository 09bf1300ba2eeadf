// SPDX-License-Identifier: Apache-2.0

package cgroup

import (
	"slices"
	"strconv"
	"strings"
)

// setting is a file that a container may have written to. The files are those of
// Documentation/admin-guide/cgroup-v2.rst and of the directory cgroup-v1.
type setting struct {
	name string
	// normal is what a new cgroup shows.
	normal string
	form   form
}

// form is how a setting is read and compared.
type form int

const (
	plain     form = iota
	inherited      // a new cgroup has its parent's
	unlimited      // normal is any number that is too large to be a limit
	first          // the number behind the first word is what can be written
	devices        // a list; what is written is the difference
	lost           // it names devices or processors of this host, or is beyond this version
)

// settings are in the order in which they are to be set.
var settings = []setting{
	// Version 1. Processors and nodes come before what they are needed for.
	{"cgroup.clone_children", "", inherited},
	{"notify_on_release", "", inherited},
	{"cpuset.cpus", "", plain},
	{"cpuset.mems", "", plain},
	{"cpuset.cpu_exclusive", "0", plain},
	{"cpuset.mem_exclusive", "0", plain},
	{"cpuset.mem_hardwall", "0", plain},
	{"cpuset.memory_migrate", "0", plain},
	{"cpuset.memory_spread_page", "0", inherited},
	{"cpuset.memory_spread_slab", "0", inherited},
	{"cpuset.sched_load_balance", "1", plain},
	{"cpuset.sched_relax_domain_level", "-1", plain},
	{"cpu.idle", "0", plain}, // before the weight, which an idle one does not take
	{"cpu.shares", "1024", plain},
	{"cpu.cfs_period_us", "100000", plain}, // before the part of it
	{"cpu.cfs_quota_us", "-1", plain},
	{"cpu.cfs_burst_us", "0", plain},
	{"cpu.rt_period_us", "1000000", plain},
	{"cpu.rt_runtime_us", "0", plain},
	{"memory.limit_in_bytes", "", unlimited}, // not above the next
	{"memory.memsw.limit_in_bytes", "", unlimited},
	{"memory.soft_limit_in_bytes", "", unlimited},
	{"memory.kmem.tcp.limit_in_bytes", "", unlimited},
	{"memory.swappiness", "", inherited},
	{"memory.oom_control", "0", first},
	{"blkio.weight", "500", plain},
	{"blkio.bfq.weight", "100", plain},
	{"net_cls.classid", "0", inherited},
	{"devices.list", "", devices},
	{"blkio.weight_device", "", lost},
	{"blkio.bfq.weight_device", "", lost},
	{"blkio.throttle.read_bps_device", "", lost},
	{"blkio.throttle.read_iops_device", "", lost},
	{"blkio.throttle.write_bps_device", "", lost},
	{"blkio.throttle.write_iops_device", "", lost},
	// Version 2.
	{"cpu.weight", "100", plain},
	{"cpu.max", "max 100000", plain},
	{"cpu.max.burst", "0", plain},
	{"cpu.uclamp.min", "0.00", plain},
	{"cpu.uclamp.max", "max", plain},
	{"memory.min", "0", plain},
	{"memory.low", "0", plain},
	{"memory.high", "max", plain},
	{"memory.max", "max", plain},
	{"memory.oom.group", "0", plain},
	{"memory.swap.high", "max", plain},
	{"memory.swap.max", "max", plain},
	{"memory.zswap.max", "max", plain},
	{"memory.zswap.writeback", "1", plain},
	{"io.weight", "default 100", plain},
	{"io.bfq.weight", "default 100", plain},
	{"io.prio.class", "no-change", plain},
	{"cgroup.pressure", "1", plain},
	{"cpuset.cpus.exclusive", "", lost},
	{"cpuset.cpus.partition", "member", lost},
	{"io.max", "", lost},
	{"io.latency", "", lost},
	// Both. The last ones forbid cgroups and processes that are there by then.
	{"pids.max", "max", plain},
	{"cgroup.max.depth", "max", plain},
	{"cgroup.max.descendants", "max", plain},
}

var orders = func() map[string]int {
	m := map[string]int{}
	for i, s := range settings {
		m[s.name] = i
	}
	return m
}()

// settingOf finds a file's, with a number that says which of two comes first.
func settingOf(name string) (s setting, order int, ok bool) {
	if i, ok := orders[name]; ok {
		return settings[i], i, true
	}
	if strings.HasPrefix(name, "hugetlb.") {
		switch {
		case strings.HasSuffix(name, "B.max"), strings.HasSuffix(name, "B.rsvd.max"):
			return setting{name, "max", plain}, len(settings), true
		case strings.HasSuffix(name, "B.limit_in_bytes"), strings.HasSuffix(name, "B.rsvd.limit_in_bytes"):
			return setting{name, "", unlimited}, len(settings), true
		}
	}
	return setting{}, 0, false
}

// limitless is above all that the kernel takes for a limit of memory, in bytes.
const limitless = 1 << 62

// value is what a file that shows text is to be given, and whether a new cgroup
// below one whose file shows parent is different.
func (s *setting) value(text, parent string) (value string, changed bool) {
	text, parent = strings.TrimSpace(text), strings.TrimSpace(parent)
	switch s.form {
	case inherited:
		return text, text != parent
	case unlimited:
		n, err := strconv.ParseUint(text, 10, 64)
		return text, err == nil && n < limitless
	case first:
		line, _, _ := strings.Cut(text, "\n")
		_, number, _ := strings.Cut(line, " ")
		return number, number != s.normal
	case devices:
		return text, !slices.Equal(list(text), list(parent))
	}
	return text, text != s.normal
}

// list are the lines of a list in an order of their own.
func list(text string) []string { return slices.Sorted(strings.Lines(text + "\n")) }
