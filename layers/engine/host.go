// SPDX-License-Identifier: Apache-2.0

package engine

import (
	"fmt"
	"os"
	"runtime"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/io-mig/mig/layers/kernel"
	"github.com/io-mig/mig/layers/kernel/target"
	"github.com/io-mig/mig/spec/image"
)

// Describe is what a stream of this host's engine will be, for a destination to
// refuse before anything is sent.
func Describe(container string, spec *specs.Spec) (*image.Manifest, error) {
	subsystems, err := Subsystems()
	if err != nil {
		return nil, err
	}
	files := specFiles(spec)
	return newManifest(container, &files, subsystems)
}

// Mismatches names everything because of which this host's engine cannot take a
// stream: architecture, page size, subsystems, CPU features.
func Mismatches(man *image.Manifest) error {
	subsystems, err := Subsystems()
	if err != nil {
		return err
	}
	return checkManifest(man, subsystems)
}

func newManifest(container string, files *target.Files, subsystems *kernel.Manager) (*image.Manifest, error) {
	features, err := cpuFeatures()
	if err != nil {
		return nil, err
	}
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return nil, fmt.Errorf("uname: %w", err)
	}
	man := &image.Manifest{
		Tool: Version, Created: time.Now().UTC().Format(time.RFC3339), Architecture: runtime.GOARCH,
		Kernel: unix.ByteSliceToString(u.Release[:]), Container: container,
		PageSize: uint32(os.Getpagesize()), CPUFeatures: features,
	}
	for _, e := range subsystems.List() {
		if !e.NoRecords && (e.Needed == nil || e.Needed(files)) {
			man.Subsystems = append(man.Subsystems, image.Subsystem{Name: e.Name, Version: e.Version})
		}
	}
	return man, nil
}
