// SPDX-License-Identifier: Apache-2.0

// Package cpuquota reads and sets how much of the processors a container's cgroup
// may use: cpu.cfs_quota_us of cgroup v1 (Documentation/scheduler/sched-bwc.rst)
// and cpu.max of v2 (Documentation/admin-guide/cgroup-v2.rst).
package cpuquota

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Quota is that of one container.
type Quota struct {
	dir   string // of the cgroup
	usage string // the file that tells what was used
	v2    bool
}

// Of finds it among the container's directories by controller; cgroup v2 has one,
// under the empty name.
func Of(cgroups map[string]string) (*Quota, error) {
	if dir, ok := cgroups["cpu"]; ok {
		q := &Quota{dir: dir, usage: filepath.Join(cgroups["cpuacct"], "cpuacct.usage")}
		return q, q.there("cpu.cfs_quota_us")
	}
	q := &Quota{dir: cgroups[""], usage: filepath.Join(cgroups[""], "cpu.stat"), v2: true}
	return q, q.there("cpu.max")
}

func (q *Quota) there(name string) error {
	if _, err := os.Stat(filepath.Join(q.dir, name)); err != nil {
		return fmt.Errorf("the container's use of processors cannot be limited, its cgroup has no %s (the controller cpu, and CONFIG_CFS_BANDWIDTH): %w", name, err)
	}
	return nil
}

// file is where the quota is.
func (q *Quota) file() string {
	if q.v2 {
		return filepath.Join(q.dir, "cpu.max")
	}
	return filepath.Join(q.dir, "cpu.cfs_quota_us")
}

// Read returns the setting, for Write.
func (q *Quota) Read() (string, error) {
	b, err := os.ReadFile(q.file())
	return strings.TrimSpace(string(b)), err
}

// Write puts a setting back. A cgroup that is gone needs none.
func (q *Quota) Write(setting string) error {
	err := os.WriteFile(q.file(), []byte(setting), 0)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENODEV) {
		return nil
	}
	return err
}

// least is what the kernel takes for a quota (min_cfs_quota_period).
const least = time.Millisecond

// Limit lets the container use so many processors, 0.5 for half the time of one,
// or the least that the kernel allows. The period stays as it is.
func (q *Quota) Limit(processors float64) error {
	period, err := q.period()
	if err != nil {
		return err
	}
	quota := max(time.Duration(processors*float64(period)), least)
	setting := strconv.FormatInt(quota.Microseconds(), 10)
	if q.v2 {
		setting += " " + strconv.FormatInt(period.Microseconds(), 10)
	}
	err = q.Write(setting)
	if errors.Is(err, unix.EINVAL) && !q.v2 {
		// v1 lets no cgroup have less than one below it was given.
		err = fmt.Errorf("%w (a cgroup that the container has made below its own has a quota above that: move it without slowing it down)", err)
	}
	return err
}

func (q *Quota) period() (time.Duration, error) {
	name, field := "cpu.cfs_period_us", 0
	if q.v2 {
		name, field = "cpu.max", 1
	}
	b, err := os.ReadFile(filepath.Join(q.dir, name))
	if err != nil {
		return 0, err
	}
	fields := strings.Fields(string(b))
	if len(fields) != field+1 {
		return 0, fmt.Errorf("%s of %s: %q", name, q.dir, b)
	}
	n, err := strconv.ParseInt(fields[field], 10, 64)
	if err != nil || n <= 0 {
		return 0, fmt.Errorf("%s of %s: %q", name, q.dir, b)
	}
	return time.Duration(n) * time.Microsecond, nil
}

// Used is the processor time that the container has used so far.
func (q *Quota) Used() (time.Duration, error) {
	b, err := os.ReadFile(q.usage)
	if err != nil {
		return 0, err
	}
	text, unit := strings.TrimSpace(string(b)), time.Nanosecond
	if q.v2 {
		text, unit = "", time.Microsecond
		for line := range strings.Lines(string(b)) {
			if rest, ok := strings.CutPrefix(line, "usage_usec "); ok {
				text = strings.TrimSpace(rest)
			}
		}
	}
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil {
		return 0, fmt.Errorf("%s: %w", q.usage, err)
	}
	return time.Duration(n) * unit, nil
}
