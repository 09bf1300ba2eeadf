// SPDX-License-Identifier: Apache-2.0

//go:build linux

package kerneltest

import (
	"fmt"
	"math"
	"os"
	"strconv"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"
)

// roleEnv marks a test binary that was started to become a container's init:
// "GATE UID GID FILTER". It mounts /proc in its new namespaces, waits for a byte
// on descriptor GATE, loads a seccomp filter if FILTER is 1, takes the ids and
// executes its arguments.
const roleEnv = "MIG_KERNELTEST_BECOME"

// tmpfsEnv names a directory that gets a tmpfs, if it is not empty.
const tmpfsEnv = "MIG_KERNELTEST_TMPFS"

// devptsEnv asks for a devpts on /dev/pts, if it is not empty.
const devptsEnv = "MIG_KERNELTEST_DEVPTS"

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
	var n [4]int
	for i, s := range strings.Fields(role) {
		var err error
		if n[i], err = strconv.Atoi(s); err != nil {
			return err
		}
	}
	// The gate and everything above it: what a shell or a test runner left open
	// across its own execs is no part of the program's descriptor table.
	if err := unix.CloseRange(uint(n[0]), math.MaxUint32, unix.CLOSE_RANGE_CLOEXEC); err != nil {
		return fmt.Errorf("close inherited descriptors at exec: %w", err)
	}
	if err := unix.Mount("", "/", "", unix.MS_PRIVATE|unix.MS_REC, ""); err != nil {
		return fmt.Errorf("make mounts private: %w", err)
	}
	if err := unix.Mount("proc", "/proc", "proc", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, ""); err != nil {
		return fmt.Errorf("mount /proc: %w", err)
	}
	if dir := os.Getenv(tmpfsEnv); dir != "" {
		if err := unix.Mount("tmpfs", dir, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, "mode=1777"); err != nil {
			return fmt.Errorf("mount a tmpfs on %s: %w", dir, err)
		}
	}
	if os.Getenv(devptsEnv) != "" {
		if err := unix.Mount("devpts", "/dev/pts", "devpts", unix.MS_NOSUID|unix.MS_NOEXEC, "newinstance,ptmxmode=0666,mode=0620"); err != nil {
			return fmt.Errorf("mount a devpts: %w", err)
		}
	}
	if _, err := unix.Write(n[0], []byte{1}); err != nil {
		return fmt.Errorf("tell that it is there: %w", err)
	}
	if err := awaitByte(n[0]); err != nil {
		return fmt.Errorf("wait to be let go: %w", err)
	}
	if n[3] != 0 {
		if err := loadFilter(); err != nil {
			return fmt.Errorf("load a seccomp filter: %w", err)
		}
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

// filtered are system calls that a restore needs and no test program makes when
// it runs with a filter (libc does without clone3).
var filtered = []uint32{unix.SYS_CLONE3, unix.SYS_CAPSET, unix.SYS_PERSONALITY, unix.SYS_RT_SIGQUEUEINFO, unix.SYS_TIMER_SETTIME}

// loadFilter makes them fail with ENOSYS for the calling thread, which is the
// one that stays.
func loadFilter() error {
	code := []unix.SockFilter{{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS}} // the number
	for _, nr := range filtered {
		code = append(code,
			unix.SockFilter{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, Jf: 1, K: nr},
			unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ERRNO | uint32(unix.ENOSYS)})
	}
	code = append(code, unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ALLOW})
	prog := unix.SockFprog{Len: uint16(len(code)), Filter: &code[0]}
	_, _, e := unix.RawSyscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, 0, uintptr(unsafe.Pointer(&prog)))
	if e != 0 {
		return e
	}
	return nil
}
