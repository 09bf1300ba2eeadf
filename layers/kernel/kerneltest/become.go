// SPDX-License-Identifier: Apache-2.0

//go:build linux

package kerneltest

import (
	"fmt"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// roleEnv marks a test binary that was started to become a container's init:
// "GATE UID GID". It mounts /proc in its new namespaces, waits for a byte on
// descriptor GATE, takes the ids and executes its arguments.
const roleEnv = "MIG_KERNELTEST_BECOME"

// init runs on the process's first thread, the one that is traced and that has
// to be there to execute another program.
func init() {
	role := os.Getenv(roleEnv)
	if role == "" {
		return
	}
	if err := become(role); err != nil {
		fmt.Fprintln(os.Stderr, "kerneltest:", err)
		os.Exit(125)
	}
}

func become(role string) error {
	var n [3]int
	for i, s := range strings.Fields(role) {
		var err error
		if n[i], err = strconv.Atoi(s); err != nil {
			return err
		}
	}
	unix.CloseOnExec(n[0])
	if err := unix.Mount("", "/", "", unix.MS_PRIVATE|unix.MS_REC, ""); err != nil {
		return fmt.Errorf("make mounts private: %w", err)
	}
	if err := unix.Mount("proc", "/proc", "proc", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, ""); err != nil {
		return fmt.Errorf("mount /proc: %w", err)
	}
	if err := awaitByte(n[0]); err != nil {
		return fmt.Errorf("wait to be let go: %w", err)
	}
	if uid, gid := n[1], n[2]; uid != 0 || gid != 0 {
		if err := unix.Setgroups([]int{gid}); err != nil {
			return fmt.Errorf("setgroups: %w", err)
		}
		if err := unix.Setresgid(gid, gid, gid); err != nil {
			return fmt.Errorf("setresgid: %w", err)
		}
		if err := unix.Setresuid(uid, uid, uid); err != nil {
			return fmt.Errorf("setresuid: %w", err)
		}
	}
	return unix.Exec(os.Args[1], os.Args[1:], []string{"PATH=/usr/bin:/bin"})
}

// awaitByte blocks until there is one. End of file means that the test is gone.
func awaitByte(fd int) error {
	var b [1]byte
	for {
		n, err := unix.Read(fd, b[:])
		if err == unix.EINTR {
			continue
		}
		if err == nil && n == 0 {
			return fmt.Errorf("nobody is there any more")
		}
		return err
	}
}
