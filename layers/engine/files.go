// SPDX-License-Identifier: Apache-2.0

package engine

import (
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/io-mig/mig/layers/kernel/target"
	"github.com/io-mig/mig/layers/request/address"
	"github.com/io-mig/mig/layers/request/job"
)

// filesOf describes the container's file systems to the subsystems.
func filesOf(j *job.Job, spec *specs.Spec) target.Files {
	f := specFiles(spec)
	f.Root, f.Moves, f.Complete = j.Rootfs, moves(j.Image), true
	return f
}

// specFiles is what the specification alone says of them.
func specFiles(spec *specs.Spec) (f target.Files) {
	for _, m := range spec.Mounts {
		f.Mounts = append(f.Mounts, target.SpecMount{Destination: m.Destination, Type: m.Type, Source: m.Source, Options: m.Options})
	}
	f.Hooks = spec.Hooks != nil
	if spec.Linux != nil {
		f.Masked = append(append([]string(nil), spec.Linux.MaskedPaths...), spec.Linux.ReadonlyPaths...)
		for _, d := range spec.Linux.Devices {
			f.Devices = append(f.Devices, d.Path)
		}
	}
	return f
}

// moves: the image is no file of this host but a container on its way.
func moves(image string) bool {
	return address.IsMove(image) || strings.HasPrefix(image, address.IncomingScheme+":")
}
