// SPDX-License-Identifier: Apache-2.0

// Package hugepages has the kernel set huge pages aside for tests, and gives them
// back. The pool is the machine's: tests of several processes that run at the same
// time add to it and take away what they have added, one after the other.
package hugepages

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

const (
	// Size of a page in bytes.
	Size = 2 << 20
	pool = "/sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages"
	// loans lists who has added how many: process, its start, pages. It is locked
	// while the pool is changed.
	loans = "/run/mig-test-hugepages"
)

// loan is what a process has added to the pool.
type loan struct {
	pid   int
	start string // of the process, in ticks since the boot
	pages int
}

// Lend adds pages of 2 MB to the pool until the test and its subtests have ended. The
// error says why there are none; then the test has to be skipped.
func Lend(t testing.TB, pages int) error {
	start, err := startOf(os.Getpid())
	if err != nil {
		return err
	}
	mine := loan{os.Getpid(), start, pages}
	if err := change(func(list []loan) []loan { return append(list, mine) }); err != nil {
		return fmt.Errorf("no huge pages can be had: %w", err)
	}
	t.Cleanup(func() {
		err := change(func(list []loan) []loan {
			for i := range list {
				if list[i] == mine {
					return append(list[:i], list[i+1:]...)
				}
			}
			return list
		})
		if err != nil {
			t.Errorf("give huge pages back: %v", err)
		}
	})
	return nil
}

// group is the file with the group whose members may make System V shared memory of
// huge pages without a capability.
const group = "/proc/sys/vm/hugetlb_shm_group"

// LetGroup lets a group of the host, by default root's, make System V shared memory of
// huge pages until the test and its subtests have ended. One test at a time does so.
func LetGroup(t testing.TB, gid int) error {
	was, err := os.ReadFile(group)
	if err != nil {
		return err
	}
	if err := os.WriteFile(group, []byte(strconv.Itoa(gid)), 0); err != nil {
		return err
	}
	t.Cleanup(func() {
		if err := os.WriteFile(group, was, 0); err != nil {
			t.Errorf("give the right to huge pages back: %v", err)
		}
	})
	return nil
}

// change changes the list of loans and the pool by as much. What processes have that
// were killed goes back, too. If the kernel finds too few pages nothing is changed.
func change(edit func([]loan) []loan) error {
	f, err := os.OpenFile(loans, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	defer f.Close() // and with it the lock
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX); err != nil {
		return fmt.Errorf("lock %s: %w", loans, err)
	}
	raw, err := os.ReadFile(loans)
	if err != nil {
		return err
	}
	before, err := parse(raw)
	if err != nil {
		return err
	}
	alive := living(before)
	if err := resize(sum(alive) - sum(before)); err != nil {
		return err
	}
	after := edit(slices.Clone(alive))
	if err := resize(sum(after) - sum(alive)); err != nil {
		return errors.Join(err, write(f, alive))
	}
	return write(f, after)
}

// resize adds to the pool, all or nothing.
func resize(by int) error {
	if by == 0 {
		return nil
	}
	had, err := size()
	if err != nil {
		return err
	}
	want := max(had+by, 0)
	if err := os.WriteFile(pool, []byte(strconv.Itoa(want)), 0); err != nil {
		return err
	}
	got, err := size()
	if err != nil || got >= want {
		return err
	}
	return errors.Join(fmt.Errorf("the kernel finds %d of %d", max(got-had, 0), by), os.WriteFile(pool, []byte(strconv.Itoa(had)), 0))
}

func size() (int, error) {
	b, err := os.ReadFile(pool)
	if err != nil {
		return 0, err
	}
	return strconv.Atoi(strings.TrimSpace(string(b)))
}

// living are the loans of processes that are there.
func living(list []loan) (out []loan) {
	for _, l := range list {
		if start, err := startOf(l.pid); err == nil && start == l.start {
			out = append(out, l)
		}
	}
	return out
}

// line is what the list says of a loan.
func (l loan) line() string { return fmt.Sprintln(l.pid, l.start, l.pages) }

func sum(list []loan) (n int) {
	for _, l := range list {
		n += l.pages
	}
	return n
}

func parse(raw []byte) (list []loan, err error) {
	for line := range strings.Lines(string(raw)) {
		var l loan
		if _, err := fmt.Sscan(line, &l.pid, &l.start, &l.pages); err != nil {
			return nil, fmt.Errorf("%s: %q: %w", loans, line, err)
		}
		list = append(list, l)
	}
	return list, nil
}

func write(f *os.File, list []loan) error {
	var b bytes.Buffer
	for _, l := range list {
		b.WriteString(l.line())
	}
	if err := f.Truncate(0); err != nil {
		return err
	}
	_, err := f.WriteAt(b.Bytes(), 0)
	return err
}

// startOf is when a process has started, which tells it from one that has its id later.
func startOf(pid int) (string, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return "", err
	}
	// Behind the name, which may hold anything, it is the twentieth field.
	_, rest, _ := strings.Cut(string(b[bytes.LastIndexByte(b, ')')+1:]), " ")
	fields := strings.Fields(rest)
	const field = 19
	if len(fields) <= field {
		return "", fmt.Errorf("stat of process %d: %d fields", pid, len(fields))
	}
	return fields[field], nil
}
