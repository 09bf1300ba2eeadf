// SPDX-License-Identifier: Apache-2.0

package victim

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// Family are the processes of one program, the first in front.
type Family []*Victim

// AttachAll waits until all processes of the program whose first is pid are
// ready.
func AttachAll(ctx context.Context, pid int, c Config) (Family, error) {
	first, err := Attach(ctx, pid, c)
	if err != nil {
		return nil, err
	}
	all := Family{first}
	for _, child := range children(pid) {
		conf := c
		conf.Threads = 0
		v, err := Attach(ctx, child, conf)
		if err != nil {
			return nil, err
		}
		all = append(all, v)
	}
	if want := max(1, c.Processes); len(all) != want {
		return nil, fmt.Errorf("workload %d has %d processes, not %d", pid, len(all), want)
	}
	return all, nil
}

// children are the processes whose parent is pid (proc_pid_stat(5), field 4).
func children(pid int) (found []int) {
	files, _ := filepath.Glob("/proc/[0-9]*/stat")
	for _, file := range files {
		stat, err := os.ReadFile(file)
		if err != nil {
			continue // it has just ended
		}
		// The command in field 2 may hold spaces and parentheses.
		f := strings.Fields(string(stat[strings.LastIndexByte(string(stat), ')')+1:]))
		if len(f) > 1 && f[1] == strconv.Itoa(pid) {
			child, _ := strconv.Atoi(filepath.Base(filepath.Dir(file)))
			found = append(found, child)
		}
	}
	return found
}

// Reset forgets the silences seen so far.
func (f Family) Reset(ctx context.Context) error {
	return f.each(func(v *Victim) error { return v.Reset(ctx) })
}

// Silence is the longest that any process has seen since Reset.
func (f Family) Silence(ctx context.Context) (longest time.Duration, err error) {
	err = f.each(func(v *Victim) error {
		s, err := v.Silence(ctx)
		longest = max(longest, s.Longest())
		return err
	})
	return longest, err
}

// Prove has every process compare its memory, and wakes all threads.
func (f Family) Prove(ctx context.Context) error {
	return f.each(func(v *Victim) error {
		if err := v.Verify(ctx); err != nil {
			return err
		}
		return v.Wake(ctx)
	})
}

func (f Family) each(do func(*Victim) error) error {
	for _, v := range f {
		if err := do(v); err != nil {
			return err
		}
	}
	return nil
}
