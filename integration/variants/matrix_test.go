// SPDX-License-Identifier: Apache-2.0

package variants

import (
	"context"
	"fmt"
	"sync"
	"testing"

	"github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/contrib/seccomp"
	"github.com/containerd/containerd/v2/core/containers"
	"github.com/containerd/containerd/v2/pkg/oci"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/io-mig/mig/integration/internal/daemon"
)

// idMap of the user namespaces here.
var idMap = []specs.LinuxIDMapping{{ContainerID: 0, HostID: 100000, Size: 65536}}

// remapping is held while a snapshot's owners are changed: containerd's client
// keeps the changed parent under one name for all, which two cannot make at once.
var remapping sync.Mutex

// inUserNamespace is `ctr run --uidmap 0:100000:65536 --gidmap 0:100000:65536`.
func inUserNamespace(v variant) variant {
	v.spec = append(v.spec, oci.WithUserNamespace(idMap, idMap))
	v.snapshot = func(id string, img client.Image) client.NewContainerOpts {
		remapped := client.WithUserNSRemappedSnapshot(id, img, idMap, idMap)
		return func(ctx context.Context, cl *client.Client, c *containers.Container) error {
			remapping.Lock()
			defer remapping.Unlock()
			return remapped(ctx, cl, c)
		}
	}
	return v
}

func limit(name string, soft, hard uint64) oci.SpecOpts {
	return editSpec(func(s *specs.Spec) {
		for i := range s.Process.Rlimits {
			if s.Process.Rlimits[i].Type == name {
				s.Process.Rlimits[i].Soft, s.Process.Rlimits[i].Hard = soft, hard
				return
			}
		}
		s.Process.Rlimits = append(s.Process.Rlimits, specs.POSIXRlimit{Type: name, Soft: soft, Hard: hard})
	})
}

// starving lets the witness lower limits of its own, and gives the spec of the
// restored container the same. The spec of the first one cannot have them:
// libcontainer's init, which has set them before it executes the program, is a
// Go program that needs more than that at times (the address space is gigabytes,
// and RLIMIT_NPROC counts all that the user runs on this machine).
func starving(v variant, limits ...specs.POSIXRlimit) variant {
	numbers := map[string]int{"RLIMIT_AS": unix.RLIMIT_AS, "RLIMIT_DATA": unix.RLIMIT_DATA, "RLIMIT_NPROC": unix.RLIMIT_NPROC}
	for _, l := range limits {
		v.args = append(v.args, "limit", fmt.Sprintf("%d:%d:%d", numbers[l.Type], l.Soft, l.Hard))
		v.restored = append(v.restored, limit(l.Type, l.Soft, l.Hard))
	}
	return v
}

// filter answers some system calls with an action and allows all others.
func filter(action specs.LinuxSeccompAction, names ...string) oci.SpecOpts {
	return editSpec(func(s *specs.Spec) {
		s.Linux.Seccomp = &specs.LinuxSeccomp{
			DefaultAction: specs.ActAllow, Architectures: []specs.Arch{specs.ArchX86_64},
			Syscalls: []specs.LinuxSyscall{{Names: names, Action: action}},
		}
	})
}

// used are system calls that an export or an import makes in the task, apart
// from those that libcontainer's init needs behind its own filter.
var used = []string{
	"pause", "clone3", "ptrace", "rt_sigqueueinfo", "rt_tgsigqueueinfo", "timer_settime", "personality", "sigaltstack", "sched_setattr",
	"recvmsg", "recvfrom", "sendto", "process_vm_readv", "set_robust_list", "get_robust_list", "rseq", "membarrier", "mremap", "memfd_create", "dup3",
	"socket", "socketpair", "pipe2", "tee", "splice", "vmsplice", "eventfd2", "timerfd_create", "epoll_create1", "epoll_ctl", "setitimer", "getitimer",
	"arch_prctl", "set_tid_address", "umask", "getgroups", "getresuid", "tgkill", "kill", "madvise", "mlock", "userfaultfd", "kcmp", "getrandom",
}

// matrix is every kind of container whose whole round trip must go unnoticed.
var matrix = map[string]variant{
	"root":           {},
	"user":           {spec: []oci.SpecOpts{oci.WithUserID(1000), oci.WithUser("1000:1000")}},
	"groups":         {spec: []oci.SpecOpts{oci.WithUser("1000:1000"), groups(7, 44, 65533)}},
	"root-groups":    {spec: []oci.SpecOpts{groups(1, 2, 3)}},
	"user-ambient":   {spec: []oci.SpecOpts{oci.WithUser("1000:1000"), oci.WithAmbientCapabilities([]string{"CAP_NET_BIND_SERVICE"}), inheritable("CAP_NET_BIND_SERVICE")}},
	"no-caps":        {spec: []oci.SpecOpts{oci.WithCapabilities(nil)}},
	"one-cap":        {spec: []oci.SpecOpts{oci.WithCapabilities([]string{"CAP_KILL"})}},
	"userns":         inUserNamespace(variant{}),
	"userns-user":    inUserNamespace(variant{spec: []oci.SpecOpts{oci.WithUser("1000:1000"), groups(44)}}),
	"seccomp":        {spec: []oci.SpecOpts{seccomp.WithDefaultProfile()}},
	"seccomp-user":   {spec: []oci.SpecOpts{oci.WithUser("1000:1000"), seccomp.WithDefaultProfile()}},
	"seccomp-privs":  {spec: []oci.SpecOpts{oci.WithNewPrivileges, seccomp.WithDefaultProfile()}},
	"seccomp-errno":  {args: []string{"quiet", "nothread"}, spec: []oci.SpecOpts{filter(specs.ActErrno, without(used, startup...)...)}},
	"seccomp-kill":   {args: []string{"quiet", "nothread"}, spec: []oci.SpecOpts{filter(specs.ActKillProcess, without(used, startup...)...)}},
	"seccomp-trap":   {args: []string{"quiet", "nothread"}, spec: []oci.SpecOpts{filter(specs.ActTrap, without(used, startup...)...)}},
	"seccomp-late":   {args: []string{"quiet", "nothread"}, spec: []oci.SpecOpts{oci.WithNewPrivileges, filter(specs.ActErrno, without(used, startup...)...)}},
	"privileged":     {spec: []oci.SpecOpts{oci.WithPrivileged, oci.WithAllDevicesAllowed}},
	"new-privileges": {spec: []oci.SpecOpts{oci.WithNewPrivileges}},
	"read-only":      {spec: []oci.SpecOpts{oci.WithRootFSReadonly()}},
	"net-host":       {spec: []oci.SpecOpts{oci.WithHostNamespace(specs.NetworkNamespace)}},
	"own-everything": {spec: []oci.SpecOpts{oci.WithLinuxNamespace(specs.LinuxNamespace{Type: specs.CgroupNamespace}), oci.WithHostname("variant")}},
	"ipc-uts-host":   {spec: []oci.SpecOpts{oci.WithHostNamespace(specs.IPCNamespace), oci.WithHostNamespace(specs.UTSNamespace)}},
	"nofile":         {spec: []oci.SpecOpts{limit("RLIMIT_NOFILE", 32, 40)}},
	"nofile-user":    {spec: []oci.SpecOpts{oci.WithUser("1000:1000"), limit("RLIMIT_NOFILE", 32, 32)}},
	"rlimits": starving(variant{spec: []oci.SpecOpts{
		limit("RLIMIT_STACK", 1<<20, 2<<20), limit("RLIMIT_MEMLOCK", 0, 0), limit("RLIMIT_FSIZE", 1<<20, 1<<20), limit("RLIMIT_CORE", 0, 1<<20),
		limit("RLIMIT_CPU", 1000, 2000), limit("RLIMIT_SIGPENDING", 10, 10), limit("RLIMIT_MSGQUEUE", 0, 0), limit("RLIMIT_RTTIME", 100, 200),
	}}, specs.POSIXRlimit{Type: "RLIMIT_AS", Soft: 200 << 20, Hard: 300 << 20}, specs.POSIXRlimit{Type: "RLIMIT_DATA", Soft: 100 << 20, Hard: 100 << 20},
		specs.POSIXRlimit{Type: "RLIMIT_NPROC", Soft: 1, Hard: 50}),
	"rlimits-user": starving(variant{spec: []oci.SpecOpts{
		oci.WithUser("1000:1000"), limit("RLIMIT_FSIZE", 0, 0), limit("RLIMIT_STACK", 1<<20, 1<<20),
	}}, specs.POSIXRlimit{Type: "RLIMIT_AS", Soft: 200 << 20, Hard: 200 << 20}, specs.POSIXRlimit{Type: "RLIMIT_NPROC", Soft: 1, Hard: 1}),
	"memory":          {spec: []oci.SpecOpts{oci.WithMemoryLimit(32 << 20)}},
	"cpu":             {spec: []oci.SpecOpts{oci.WithCPUCFS(50000, 100000), oci.WithCPUShares(512), oci.WithCPUs("0"), oci.WithCPUsMems("0")}},
	"pids":            {spec: []oci.SpecOpts{oci.WithPidsLimit(5)}},
	"oom-score":       {spec: []oci.SpecOpts{editSpec(func(s *specs.Spec) { n := 500; s.Process.OOMScoreAdj = &n })}},
	"cwd":             {spec: []oci.SpecOpts{oci.WithProcessCwd("/home/user")}},
	"deep":            {args: []string{"deep"}},
	"deep-user":       {args: []string{"deep"}, spec: []oci.SpecOpts{oci.WithUser("1000:1000")}},
	"deep-userns":     inUserNamespace(variant{args: []string{"deep"}}),
	"deep-privileged": {args: []string{"deep"}, spec: []oci.SpecOpts{oci.WithPrivileged}},
	"sysctl": {spec: []oci.SpecOpts{editSpec(func(s *specs.Spec) {
		s.Linux.Sysctl = map[string]string{"net.ipv4.ip_unprivileged_port_start": "77", "kernel.msgmax": "4096"}
	})}},
	"time":      {spec: []oci.SpecOpts{timeNamespace(1000000)}},
	"devices":   {spec: []oci.SpecOpts{oci.WithDevices("/dev/fuse", "/dev/fuse", "rwm")}},
	"scheduler": {spec: []oci.SpecOpts{editSpec(func(s *specs.Spec) { s.Process.Scheduler = &specs.Scheduler{Policy: specs.SchedBatch, Nice: 7} })}},
	"ioprio": {spec: []oci.SpecOpts{editSpec(func(s *specs.Spec) {
		s.Process.IOPriority = &specs.LinuxIOPriority{Class: specs.IOPRIO_CLASS_BE, Priority: 6}
	})}},
	"personality": {spec: []oci.SpecOpts{editSpec(func(s *specs.Spec) { s.Linux.Personality = &specs.LinuxPersonality{Domain: specs.PerLinux} })}},
}

// startup are those of used that libc or libcontainer's init make.
var startup = []string{"clone3", "set_robust_list", "rseq", "arch_prctl", "set_tid_address", "getrandom", "mremap", "dup3", "madvise", "pipe2", "epoll_create1", "epoll_ctl", "eventfd2", "tgkill", "sigaltstack", "kill", "socket", "recvfrom", "recvmsg", "sendto", "getresuid"}

func without(list []string, names ...string) []string {
	var out []string
	skip := map[string]bool{}
	for _, n := range names {
		skip[n] = true
	}
	for _, n := range list {
		if !skip[n] {
			out = append(out, n)
		}
	}
	return out
}

func groups(ids ...uint32) oci.SpecOpts {
	return editSpec(func(s *specs.Spec) { s.Process.User.AdditionalGids = ids })
}

func inheritable(names ...string) oci.SpecOpts {
	return editSpec(func(s *specs.Spec) { s.Process.Capabilities.Inheritable = names })
}

func timeNamespace(seconds int64) oci.SpecOpts {
	return editSpec(func(s *specs.Spec) {
		s.Linux.Namespaces = append(s.Linux.Namespaces, specs.LinuxNamespace{Type: specs.TimeNamespace})
		s.Linux.TimeOffsets = map[string]specs.LinuxTimeOffset{"monotonic": {Secs: seconds}, "boottime": {Secs: seconds}}
	})
}

// TestMatrix: each kind of container is left running by a checkpoint, and
// comes back from it under another id, the same in its own eyes and in the
// kernel's.
func TestMatrix(t *testing.T) {
	h := startHost(t, daemon.V24)
	for name, v := range matrix {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := h.run(t, "box-"+name, v)
			b.lives("at first")
			before := b.facts()
			dir := b.checkpoint()
			b.lives("after its checkpoint")
			before.same(t, "after the checkpoint", b.facts())
			reached := b.peek()
			b.remove()
			r := h.restore(t, "box-"+name+"-again", v, dir)
			if a := r.lives("after the restore"); a.Beats > reached.Beats+100000 {
				t.Errorf("%d beats after %d", a.Beats, reached.Beats)
			}
			before.copied(t, "after the restore", r.facts())
			r.remove()
		})
	}
}
