// SPDX-License-Identifier: Apache-2.0

package cgroup

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/io-mig/mig/layers/kernel/procfs"
	"github.com/io-mig/mig/layers/kernel/target"
	"github.com/io-mig/mig/spec/state"
)

// ownIn makes a cgroup of the test's in the hierarchy of a controller of version 1.
func ownIn(t *testing.T, controller string) string {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root: cgroups")
	}
	root := filepath.Join("/sys/fs/cgroup", controller)
	if _, err := os.Stat(filepath.Join(root, "release_agent")); err != nil {
		t.Skip("no hierarchy of version 1: ", err)
	}
	own := filepath.Join(root, fmt.Sprintf("mig-cgroup-test-%d", os.Getpid()))
	if err := os.Mkdir(own, 0o755); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		for _, dir := range []string{own + "/a/b", own + "/a", own} {
			if err := os.Remove(dir); err != nil && !os.IsNotExist(err) {
				t.Error(err)
			}
		}
	})
	return own
}

// build makes a chain of two cgroups with the same settings.
func build(t *testing.T, own, controller string, outer, inner *state.CgroupSetting) error {
	t.Helper()
	h := &state.Hierarchy{Controller: []string{controller}, Cgroup: []*state.Cgroup{
		{Name: []byte("a"), Setting: []*state.CgroupSetting{outer}}, {Parent: 1, Name: []byte("b"), Setting: []*state.CgroupSetting{inner}},
	}}
	b := &builder{
		place: &place{dir: own, controllers: h.Controller}, Hierarchy: h, dirs: []string{own},
		frame: &target.Frame{}, proc: procfs.Host().Process(os.Getpid()), known: map[owner]owner{},
	}
	return b.build()
}

func shows(t *testing.T, own, file, want string) {
	t.Helper()
	got, err := os.ReadFile(filepath.Join(own, file))
	if err != nil || string(got) != want {
		t.Errorf("%s: %q, want %q, %v", file, got, want, err)
	}
}

// TestImageWidensNothing: a cgroup may have less than the one above it, and an image
// that wants more is refused by the kernel.
func TestImageWidensNothing(t *testing.T) {
	list := func(value string) *state.CgroupSetting {
		return &state.CgroupSetting{Name: "devices.list", Value: []byte(value)}
	}
	t.Run("less", func(t *testing.T) {
		own := ownIn(t, "devices")
		if err := setDevices(own, "c 1:3 rw\nc 1:5 rw"); err != nil {
			t.Fatal(err)
		}
		if err := build(t, own, "devices", list("c 1:3 rw"), list("")); err != nil {
			t.Error(err)
		}
		shows(t, own, "a/devices.list", "c 1:3 rw\n")
		shows(t, own, "a/b/devices.list", "")
	})
	for what, value := range map[string]string{"all devices": "a *:* rwm", "another device": "c 1:3 rw\nb 8:0 rwm", "another right": "c 1:3 rwm"} {
		t.Run(what, func(t *testing.T) {
			own := ownIn(t, "devices")
			if err := setDevices(own, "c 1:3 rw"); err != nil {
				t.Fatal(err)
			}
			if err := build(t, own, "devices", list(value), list(value)); err == nil {
				t.Error("accepted")
			}
		})
	}
	t.Run("time of processors", func(t *testing.T) {
		own := ownIn(t, "cpu")
		put(t, own, map[string]string{"cpu.cfs_quota_us": "50000"})
		quota := func(n string) *state.CgroupSetting {
			return &state.CgroupSetting{Name: "cpu.cfs_quota_us", Value: []byte(n)}
		}
		if err := build(t, own, "cpu", quota("20000"), quota("90000")); err == nil {
			t.Error("accepted")
		}
		shows(t, own, "a/cpu.cfs_quota_us", "20000\n")
	})
}
