// SPDX-License-Identifier: Apache-2.0

package engine

import (
	"errors"
	"os"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/io-mig/mig/layers/kernel"
	"github.com/io-mig/mig/layers/kernel/cgroup"
	"github.com/io-mig/mig/spec/image"
)

// here is a manifest that fits this host.
func here(t *testing.T) (*image.Manifest, *kernel.Manager) {
	t.Helper()
	features, err := cpuFeatures()
	if err != nil {
		t.Fatal(err)
	}
	subsystems, err := Subsystems()
	if err != nil {
		t.Fatal(err)
	}
	m := &image.Manifest{Architecture: runtime.GOARCH, PageSize: uint32(os.Getpagesize()), CPUFeatures: features}
	for _, e := range subsystems.List() {
		m.Subsystems = append(m.Subsystems, image.Subsystem{Name: e.Name, Version: e.Version})
	}
	return m, subsystems
}

// TestManifestNamesEveryMismatch: a person who has to choose another host must
// not find out one reason at a time.
func TestManifestNamesEveryMismatch(t *testing.T) {
	m, subsystems := here(t)
	if err := checkManifest(m, subsystems); err != nil {
		t.Fatalf("an image of this host: %v", err)
	}
	m.Architecture, m.PageSize = "riscv64", 16384
	m.CPUFeatures = append(m.CPUFeatures, "amx_of_tomorrow")
	m.Subsystems = append(m.Subsystems, image.Subsystem{Name: "gpu", Version: 1})
	m.Subsystems[0].Version += 7
	err := checkManifest(m, subsystems)
	if !errors.Is(err, kernel.ErrUnknown) {
		t.Errorf("no unknown subsystem in %v", err)
	}
	for _, want := range []string{"riscv64", "16384", "amx_of_tomorrow", `"gpu"`, `"` + m.Subsystems[0].Name + `"`} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%s is not named in %v", want, err)
		}
	}
}

// TestOrderOfSubsystems: what the order stands for (docs/architecture.md).
func TestOrderOfSubsystems(t *testing.T) {
	m, err := Subsystems()
	if err != nil {
		t.Fatal(err)
	}
	place := map[string]int{}
	for i, e := range m.List() {
		place[e.Name] = i
	}
	for _, pair := range [][2]string{
		{"memory", "file"}, {"file", "pipe"}, {"file", "socket"}, {"pipe", "event"}, {"socket", "event"},
		{"task", "credential"}, {"timer", "credential"}, {"credential", "cpu"}, {"signal", "cpu"},
	} {
		if place[pair[0]] >= place[pair[1]] {
			t.Errorf("%s must come before %s", pair[0], pair[1])
		}
	}
}

// TestManifestNamesWhatIsNeeded: an older mig, to which cgroups below a container's own
// are unknown, takes the containers that cannot have any.
func TestManifestNamesWhatIsNeeded(t *testing.T) {
	for options, want := range map[string]bool{"ro": false, "rw": true} {
		spec := &specs.Spec{Mounts: []specs.Mount{{Destination: "/sys/fs/cgroup", Type: "cgroup", Source: "cgroup", Options: []string{"nosuid", options}}}}
		m, err := Describe("web", spec)
		if err != nil {
			t.Fatal(err)
		}
		if got := slices.Contains(m.Names(), cgroup.Name); got != want {
			t.Errorf("cgroups mounted %s: %v", options, m.Names())
		}
		if all, _ := here(t); len(all.Subsystems)-len(m.Subsystems) > 1 {
			t.Errorf("%v, of %v", m.Names(), all.Names())
		}
	}
}
