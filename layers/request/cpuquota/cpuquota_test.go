// SPDX-License-Identifier: Apache-2.0

package cpuquota

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func write(t *testing.T, dir, name, text string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(dir, name), []byte(text+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
}

// TestLimit: both versions are limited and put back as they were.
func TestLimit(t *testing.T) {
	v1, v2 := t.TempDir(), t.TempDir()
	write(t, v1, "cpu.cfs_quota_us", "-1")
	write(t, v1, "cpu.cfs_period_us", "50000")
	write(t, v1, "cpuacct.usage", "1500000000")
	write(t, v2, "cpu.max", "max 100000")
	write(t, v2, "cpu.stat", "usage_usec 2500000\nuser_usec 1\nsystem_usec 2")
	for _, test := range []struct {
		cgroups                map[string]string
		before, quarter, least string
		used                   time.Duration
	}{
		{map[string]string{"cpu": v1, "cpuacct": v1, "": v2}, "-1", "12500", "1000", 1500 * time.Millisecond},
		{map[string]string{"": v2}, "max 100000", "25000 100000", "1000 100000", 2500 * time.Millisecond},
	} {
		q, err := Of(test.cgroups)
		if err != nil {
			t.Fatal(err)
		}
		before, err := q.Read()
		if err != nil || before != test.before {
			t.Errorf("%q, %v, want %q", before, err, test.before)
		}
		for _, limit := range []struct {
			processors float64
			want       string
		}{{0.25, test.quarter}, {0, test.least}} {
			if err := q.Limit(limit.processors); err != nil {
				t.Fatal(err)
			}
			if got, err := q.Read(); got != limit.want || err != nil {
				t.Errorf("%v processors: %q, %v, want %q", limit.processors, got, err, limit.want)
			}
		}
		if err := q.Write(before); err != nil {
			t.Fatal(err)
		}
		if got, err := q.Read(); got != before || err != nil {
			t.Errorf("put back: %q, %v", got, err)
		}
		if used, err := q.Used(); used != test.used || err != nil {
			t.Errorf("used %s, %v", used, err)
		}
	}
}

// TestNone: what cannot be limited is said, and a cgroup that is gone needs
// nothing put back.
func TestNone(t *testing.T) {
	if _, err := Of(map[string]string{"cpu": t.TempDir()}); err == nil || !strings.Contains(err.Error(), "CONFIG_CFS_BANDWIDTH") {
		t.Errorf("without the file: %v", err)
	}
	dir := t.TempDir()
	write(t, dir, "cpu.max", "max 100000")
	q, err := Of(map[string]string{"": dir})
	if err != nil {
		t.Fatal(err)
	}
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	if err := q.Write("max 100000"); err != nil {
		t.Errorf("gone: %v", err)
	}
}

// TestQuotaBelow: a container of v1 whose own children have quotas cannot be slowed
// down below those, and says why.
func TestQuotaBelow(t *testing.T) {
	const root = "/sys/fs/cgroup/cpu"
	if _, err := os.Stat(root + "/release_agent"); err != nil || os.Geteuid() != 0 {
		t.Skip("needs root and the hierarchy of cpu of version 1")
	}
	own := fmt.Sprintf("%s/mig-cpuquota-test-%d", root, os.Getpid())
	for _, dir := range []string{own, own + "/a"} {
		if err := os.Mkdir(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		defer os.Remove(dir)
	}
	write(t, own+"/a", "cpu.cfs_quota_us", "50000")
	q, err := Of(map[string]string{"cpu": own, "cpuacct": own})
	if err != nil {
		t.Fatal(err)
	}
	if err := q.Limit(0.75); err != nil {
		t.Error(err)
	}
	if err := q.Limit(0.25); err == nil || !strings.Contains(err.Error(), "below its own has a quota above") {
		t.Error(err)
	}
	if got, err := q.Read(); err != nil || got != "75000" {
		t.Errorf("%q, %v", got, err)
	}
}
