// SPDX-License-Identifier: Apache-2.0

//go:build linux && amd64

package tracer

import (
	"encoding/binary"
	"fmt"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// InVfork reports whether a thread of a process waits in vfork(2), or in a clone(2)
// that waits like it, for a child to execute a program or to end. Nothing can stop
// it meanwhile.
func InVfork(pid int) bool {
	tids, err := listTasks(pid)
	if err != nil {
		return false
	}
	for _, tid := range tids {
		if line := currentSyscall(pid, tid); isVfork(line) && !clonesWithout(pid, line, unix.CLONE_VFORK) {
			return true
		}
	}
	return false
}

// clonesWithout: a line of /proc/PID/syscall is clone3(2), whose flags are in the
// process's memory, and flag is none of them.
func clonesWithout(pid int, line string, flag uint64) bool {
	f := strings.Fields(line)
	if f[0] != strconv.Itoa(unix.SYS_CLONE3) || len(f) < 2 {
		return false
	}
	at, err := strconv.ParseUint(strings.TrimPrefix(f[1], "0x"), 16, 64)
	if err != nil {
		return false
	}
	mem, err := os.Open(fmt.Sprintf("/proc/%d/mem", pid))
	if err != nil {
		return false
	}
	defer mem.Close()
	b := make([]byte, 8) // struct clone_args begins with them
	if _, err := mem.ReadAt(b, int64(at)); err != nil {
		return false
	}
	return binary.LittleEndian.Uint64(b)&flag == 0
}
