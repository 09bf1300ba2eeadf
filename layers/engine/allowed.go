// SPDX-License-Identifier: Apache-2.0

package engine

import (
	"fmt"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/io-mig/mig/layers/kernel/target"
)

// allowed reads from the live request's spec what its process may be. An image
// can only narrow it.
func allowed(spec *specs.Spec) (target.Allowed, error) {
	var a target.Allowed
	p := spec.Process
	if p == nil {
		return a, fmt.Errorf("the OCI configuration has no process")
	}
	a.UID, a.GID, a.Groups = p.User.UID, p.User.GID, p.User.AdditionalGids
	a.NoNewPrivileges = p.NoNewPrivileges
	if c := p.Capabilities; c != nil {
		for _, set := range []struct {
			names []string
			mask  *uint64
		}{
			{c.Bounding, &a.Bounding}, {c.Permitted, &a.Permitted}, {c.Effective, &a.Effective},
			{c.Inheritable, &a.Inheritable}, {c.Ambient, &a.Ambient},
		} {
			for _, name := range set.names {
				n, ok := capabilityNumber(name)
				if !ok {
					// libcontainer leaves out what the kernel does not know, too.
					continue
				}
				*set.mask |= 1 << n
			}
		}
	}
	executed(&a)
	a.Limits = map[int]unix.Rlimit{}
	for _, r := range p.Rlimits {
		n, ok := rlimitNumbers[r.Type]
		if !ok {
			return a, fmt.Errorf("resource limit %q is not known", r.Type)
		}
		a.Limits[n] = unix.Rlimit{Cur: r.Soft, Max: r.Hard}
	}
	return a, nil
}

// executed turns the sets that the spec names into those that its program gets:
// a user's loses at execve(2) what is not ambient, see capabilities(7), and specs
// commonly name a root's sets for any user. What a file's capabilities or set-id
// bits would add depends on the file, and is not given to an image.
func executed(a *target.Allowed) {
	if a.UID == 0 {
		return
	}
	a.Ambient &= a.Permitted & a.Inheritable
	a.Permitted, a.Effective = a.Ambient, a.Ambient
}

// rlimitNumbers are the resources of getrlimit(2) by their names in a spec.
var rlimitNumbers = map[string]int{
	"RLIMIT_CPU": unix.RLIMIT_CPU, "RLIMIT_FSIZE": unix.RLIMIT_FSIZE, "RLIMIT_DATA": unix.RLIMIT_DATA,
	"RLIMIT_STACK": unix.RLIMIT_STACK, "RLIMIT_CORE": unix.RLIMIT_CORE, "RLIMIT_RSS": unix.RLIMIT_RSS,
	"RLIMIT_NPROC": unix.RLIMIT_NPROC, "RLIMIT_NOFILE": unix.RLIMIT_NOFILE, "RLIMIT_MEMLOCK": unix.RLIMIT_MEMLOCK,
	"RLIMIT_AS": unix.RLIMIT_AS, "RLIMIT_LOCKS": unix.RLIMIT_LOCKS, "RLIMIT_SIGPENDING": unix.RLIMIT_SIGPENDING,
	"RLIMIT_MSGQUEUE": unix.RLIMIT_MSGQUEUE, "RLIMIT_NICE": unix.RLIMIT_NICE, "RLIMIT_RTPRIO": unix.RLIMIT_RTPRIO,
	"RLIMIT_RTTIME": unix.RLIMIT_RTTIME,
}

// capabilityNames are in the order of include/uapi/linux/capability.h.
var capabilityNames = strings.Fields(`
	CHOWN DAC_OVERRIDE DAC_READ_SEARCH FOWNER FSETID KILL SETGID SETUID SETPCAP LINUX_IMMUTABLE
	NET_BIND_SERVICE NET_BROADCAST NET_ADMIN NET_RAW IPC_LOCK IPC_OWNER SYS_MODULE SYS_RAWIO SYS_CHROOT
	SYS_PTRACE SYS_PACCT SYS_ADMIN SYS_BOOT SYS_NICE SYS_RESOURCE SYS_TIME SYS_TTY_CONFIG MKNOD LEASE
	AUDIT_WRITE AUDIT_CONTROL SETFCAP MAC_OVERRIDE MAC_ADMIN SYSLOG WAKE_ALARM BLOCK_SUSPEND AUDIT_READ
	PERFMON BPF CHECKPOINT_RESTORE`)

func capabilityNumber(name string) (int, bool) {
	name = strings.TrimPrefix(strings.ToUpper(name), "CAP_")
	for i, n := range capabilityNames {
		if n == name {
			return i, true
		}
	}
	return 0, false
}
