// SPDX-License-Identifier: Apache-2.0

package engine

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"slices"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/io-mig/mig/layers/control"
	"github.com/io-mig/mig/layers/engine/names"
	"github.com/io-mig/mig/layers/kernel/container"
	"github.com/io-mig/mig/layers/kernel/onthread"
	"github.com/io-mig/mig/layers/kernel/target"
	"github.com/io-mig/mig/layers/medium"
	"github.com/io-mig/mig/layers/request/job"
	"github.com/io-mig/mig/spec/agent/mount"
)

// restore turns the job's frame into what the image holds.
func restore(ctx context.Context, j *job.Job, files []*os.File, r job.Reporter) error {
	subsystems, err := Subsystems()
	if err != nil {
		return err
	}
	spec, err := loadSpec(j)
	if err != nil {
		return err
	}
	fr, err := openFrame(j, spec, files)
	if err != nil {
		return err
	}
	m, err := openMedium(ctx, j.Image, medium.Read)
	if err != nil {
		return err
	}
	manifest, err := readManifest(ctx, m, subsystems)
	if err != nil {
		return errors.Join(err, m.Close())
	}
	instances, times := onthread.Wrap(subsystems.Instances(target.Env{Frame: fr, Workers: workers(), Options: j.Options}), container.Frame{Frame: fr}.Traced)
	p := newProgress(r, times) // from here on the medium is the event's, which closes it
	x := control.NewImport(control.ImportOptions{
		Tuning: tuning(j, p), Container: container.Frame{Frame: fr}, Medium: m,
		Subsystems: instances,
		Manifest:   func(context.Context) ([]string, error) { return manifest.Names(), nil },
	})
	stop := p.watch(x.Status)
	result, err := x.Run(ctx)
	stop(result)
	return err
}

// openFrame describes the frame of a job.
func openFrame(j *job.Job, spec *specs.Spec, files []*os.File) (*target.Frame, error) {
	socket, seized := slices.Index(j.Files, names.FrameSocket), slices.Index(j.Files, names.FrameSeized)
	if socket < 0 || seized < 0 {
		return nil, fmt.Errorf("a restore needs the descriptors %q and %q, the job has %q", names.FrameSocket, names.FrameSeized, j.Files)
	}
	a, err := allowed(spec)
	if err != nil {
		return nil, fmt.Errorf("container %s: %w", j.Container, err)
	}
	return &target.Frame{
		Init: j.InitPid, Socket: int(files[socket].Fd()), Allowed: a, Files: filesOf(j, spec), Cgroups: j.Cgroups,
		OwnIPC:     ownNamespace(spec, specs.IPCNamespace),
		OwnUTS:     ownNamespace(spec, specs.UTSNamespace),
		OwnNet:     ownNamespace(spec, specs.NetworkNamespace),
		SharesTime: joins(spec, specs.TimeNamespace),
		Started: func(context.Context) error {
			if _, err := files[seized].Write([]byte{1}); err != nil {
				return fmt.Errorf("tell the shim that the frame is seized: %w", err)
			}
			return nil
		},
	}, nil
}

// maxSpec bounds a spec's file, in bytes.
const maxSpec = 8 << 20

// loadSpec reads the live request's OCI configuration.
func loadSpec(j *job.Job) (*specs.Spec, error) {
	b := j.Spec
	if len(b) == 0 {
		st, err := os.Stat(j.SpecPath)
		if err != nil {
			return nil, fmt.Errorf("the container's OCI configuration: %w", err)
		}
		if st.Size() > maxSpec {
			return nil, fmt.Errorf("the OCI configuration %s has %d bytes, the limit is %d", j.SpecPath, st.Size(), maxSpec)
		}
		if b, err = os.ReadFile(j.SpecPath); err != nil {
			return nil, fmt.Errorf("the container's OCI configuration: %w", err)
		}
	}
	var spec specs.Spec
	if err := json.Unmarshal(b, &spec); err != nil {
		return nil, fmt.Errorf("the container's OCI configuration: %w", err)
	}
	return mount.Add(&spec, j.Bundle), nil
}
