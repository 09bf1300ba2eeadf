// SPDX-License-Identifier: Apache-2.0

package runtime

import (
	"errors"
	"fmt"
	"os"
	"slices"

	"github.com/opencontainers/runc/libcontainer"
	"github.com/opencontainers/runc/libcontainer/configs"
	"golang.org/x/sys/unix"
)

// frameProgram is the memfd among the passed descriptors, the first after stdio.
const frameProgram = "/proc/self/fd/3"

// frameCaps are what an engine uses inside a frame's user namespace: chosen
// thread ids and the exe link (CHECKPOINT_RESTORE; SYS_ADMIN on kernels before
// 5.9), and then the way down to the saved credentials.
var frameCaps = []string{"CAP_CHECKPOINT_RESTORE", "CAP_SYS_ADMIN", "CAP_SETPCAP", "CAP_SETUID", "CAP_SETGID"}

// frameRlimits are those that stand in the way of building a process: high
// descriptor numbers, mappings larger than the final ones, threads, mlock. The
// engine lowers them at the end to what TargetProcess says. RLIMIT_STACK is not
// among them: execve chooses the address space's layout by it, for good.
var frameRlimits = []int{unix.RLIMIT_NOFILE, unix.RLIMIT_AS, unix.RLIMIT_DATA, unix.RLIMIT_NPROC, unix.RLIMIT_MEMLOCK}

// newInitProcess is the first process: the spec's own or the frame.
func newInitProcess(o CreateOptions) (*libcontainer.Process, error) {
	lp, err := newProcess(o.Spec.Process)
	if err != nil {
		return nil, err
	}
	lp.Init = true
	if o.Frame == nil {
		return lp, nil
	}
	return lp, widen(lp, o.Frame)
}

// widen puts the frame program in the place of the spec's, and gives the
// process (not the container) what the engine needs. The container's
// configuration stays as the spec has it, so later exec sessions get its seccomp
// filter and credentials. no_new_privs stays as well: it does not keep root from
// executing the frame with its capabilities, it decides when libcontainer loads
// the filter (the late load needs it), and an image cannot undo it anyway.
func widen(lp *libcontainer.Process, f *Frame) error {
	lp.Args = []string{frameProgram}
	lp.ExtraFiles = []*os.File{f.ELF, f.Socket}
	lp.UID, lp.GID, lp.AdditionalGroups = 0, 0, nil
	// The image's working directory may come with the image only.
	lp.Cwd = "/"
	kept := []string{}
	if lp.Capabilities != nil {
		kept = append(kept, lp.Capabilities.Bounding...)
		kept = append(kept, lp.Capabilities.Permitted...)
	}
	kept = append(kept, frameCaps...)
	slices.Sort(kept)
	kept = slices.Compact(kept)
	lp.Capabilities = &configs.Capabilities{Bounding: kept, Effective: kept, Permitted: kept}
	return raiseRlimits(lp)
}

// raiseRlimits lifts the spec's limits, where they are in frameRlimits, to what
// this process may have itself. What the spec does not mention is inherited by a
// frame as by any other process; the engine can raise a soft limit by itself.
func raiseRlimits(lp *libcontainer.Process) error {
	for i := range lp.Rlimits {
		r := &lp.Rlimits[i]
		if !slices.Contains(frameRlimits, r.Type) {
			continue
		}
		var own unix.Rlimit
		if err := unix.Getrlimit(r.Type, &own); err != nil {
			return fmt.Errorf("getrlimit %d: %w", r.Type, err)
		}
		r.Hard = max(r.Hard, own.Max)
		r.Soft = r.Hard
	}
	return nil
}

// giveStdio makes the target's user the owner of what the init has as stdio,
// as libcontainer does for a process that is not a frame: a frame runs as root
// at that moment. pid must be an init that waits at the exec FIFO, our own code
// still, so its descriptors are those we gave it (or the terminal). uid is the
// container's.
func giveStdio(pid int, config *configs.Config, uid int) error {
	host, err := config.HostUID(uid)
	if err != nil {
		return fmt.Errorf("stdio: uid %d is not in the user namespace: %w", uid, err)
	}
	for fd := range 3 {
		path := fmt.Sprintf("/proc/%d/fd/%d", pid, fd)
		var st unix.Stat_t
		if err := unix.Stat(path, &st); err != nil {
			return &os.PathError{Op: "stat", Path: path, Err: err}
		}
		if int(st.Uid) == host || isDevNull(&st) {
			continue
		}
		// The group stays: a mount may have chosen it (devpts' gid=).
		err := os.Chown(path, host, -1)
		if err != nil && !errors.Is(err, unix.EPERM) && !errors.Is(err, unix.EROFS) {
			return err
		}
	}
	return nil
}

// isDevNull: device 1:3 (Documentation/admin-guide/devices.txt) must never
// change its owner.
func isDevNull(st *unix.Stat_t) bool {
	return st.Mode&unix.S_IFMT == unix.S_IFCHR && st.Rdev == unix.Mkdev(1, 3)
}
