// SPDX-License-Identifier: Apache-2.0

package engine

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/io-mig/mig/layers/control"
	"github.com/io-mig/mig/layers/engine/switchover"
	"github.com/io-mig/mig/layers/kernel/container"
	"github.com/io-mig/mig/layers/kernel/onthread"
	"github.com/io-mig/mig/layers/kernel/target"
	"github.com/io-mig/mig/layers/medium"
	"github.com/io-mig/mig/layers/request/job"
	"github.com/io-mig/mig/spec/agent/mount"
	"github.com/io-mig/mig/spec/record"
)

// What is in the way for a moment only is tried again: a busy server has a
// connection that waits to be accepted at most times, and at few of them twice.
// At the listener of a saturated server one waits nine times of ten. On a busy machine
// the server gets its turn only now and then, and so does who looks.
const (
	passingPatience = 6 * time.Second      // at least, and
	passingTries    = 40                   // at least
	passingPause    = 5 * time.Millisecond // longer each time, up to
	passingMost     = 20 * time.Millisecond
)

// checkpoint exports the job's container into its image. The container runs
// between two tries, and the image of one that failed is gone.
func checkpoint(ctx context.Context, j *job.Job, r job.Reporter) (err error) {
	end := time.Now().Add(passingPatience)
	for n := 1; ; n++ {
		if err = checkpointOnce(ctx, j, r); !errors.Is(err, record.ErrPassing) {
			return err
		}
		if n >= passingTries && time.Now().After(end) {
			return fmt.Errorf("%w (tried %d times)", err, n)
		}
		select {
		case <-time.After(min(time.Duration(n)*passingPause, passingMost)):
		case <-ctx.Done():
			return errors.Join(err, context.Cause(ctx))
		}
	}
}

func checkpointOnce(ctx context.Context, j *job.Job, r job.Reporter) error {
	subsystems, err := Subsystems()
	if err != nil {
		return err
	}
	src, err := openSource(j)
	if err != nil {
		return err
	}
	defer src.Learn()()
	// Whatever cannot be carried is named before the image is begun.
	instances, times := onthread.Wrap(subsystems.Instances(target.Env{Source: src, Workers: workers(), Options: j.Options}), container.Source{Source: src}.Traced)
	m, err := openMedium(ctx, j.Image, medium.Write)
	if err != nil {
		return err
	}
	if err := writeManifest(ctx, m, j.Container, &src.Files, subsystems); err != nil {
		return errors.Join(err, m.Close())
	}
	strategy, brief, err := imageStrategy(j, src)
	if err != nil {
		return errors.Join(err, m.Close())
	}
	p := newProgress(r, times) // from here on the medium is the event's, which closes it
	tune := tuning(j, p)
	tune.Reside = container.Source{Source: src}.Reside
	if brief {
		tune.Observer = hurrying(tune.Observer, control.StateHolding, control.StateFlushing)
	}
	if switchover.Point != nil {
		stepping(&tune)
	}
	quiesce, wake := application(j, r)
	x := control.NewExport(control.ExportOptions{
		Tuning: tune, Container: container.Source{Source: src}, Subsystems: instances, Medium: m,
		Strategy: strategy, Leave: j.Leave, Quiesce: quiesce, Wake: wake,
	})
	stop := p.watch(x.Status)
	result, err := x.Run(ctx)
	stop(result)
	return err
}

// stepping makes points, see switchover.Point, of what a checkpoint comes to: its
// states, and every call that has returned.
func stepping(t *control.Tuning) {
	observe := t.Observer
	t.Observer = func(tr control.Transition) {
		observe(tr)
		point("checkpoint: " + tr.To.String())
	}
	t.Called = func(p control.Place, _, _ time.Time) { point("checkpoint: " + p.String()) }
}

// openSource looks at the container of a job without touching it.
func openSource(j *job.Job) (*target.Source, error) {
	freezer, err := target.NewFreezer(j.Freezer)
	if err != nil {
		return nil, fmt.Errorf("container %s: %w", j.Container, err)
	}
	var stdio []target.StdioFile
	for _, s := range j.Stdio {
		stdio = append(stdio, target.StdioFile{Dev: s.Dev, Ino: s.Ino})
	}
	src, err := target.NewSource(j.InitPid, freezer, stdio)
	if err != nil {
		return nil, fmt.Errorf("container %s: %w", j.Container, err)
	}
	spec, err := loadSpec(j)
	if err != nil {
		return nil, err
	}
	if spec.Linux != nil && spec.Linux.Seccomp != nil {
		src.SeccompFilters = 1
	}
	a, err := allowed(spec)
	if err != nil {
		return nil, fmt.Errorf("container %s: %w", j.Container, err)
	}
	src.Allowed, src.Files = &a, filesOf(j, spec)
	src.Cgroups = j.Cgroups
	src.Terminal = j.Terminal
	src.Agent = mount.Wanted(spec)
	src.SessionKeyring = "_ses." + j.Container // as libcontainer calls it
	src.OwnIPC = ownNamespace(spec, specs.IPCNamespace)
	src.OwnNet = ownNamespace(spec, specs.NetworkNamespace)
	src.HostNet = !src.OwnNet && !joins(spec, specs.NetworkNamespace)
	if ownNamespace(spec, specs.UTSNamespace) {
		src.UTS = &target.UTSNames{Host: spec.Hostname, Domain: spec.Domainname}
	}
	return src, nil
}

// ownNamespace: the spec makes a new namespace for the container, instead of
// sharing the host's or joining another's.
func ownNamespace(spec *specs.Spec, kind specs.LinuxNamespaceType) bool {
	return spec.Linux != nil && slices.ContainsFunc(spec.Linux.Namespaces, func(ns specs.LinuxNamespace) bool {
		return ns.Type == kind && ns.Path == ""
	})
}

// joins: the spec has the container in a namespace that exists.
func joins(spec *specs.Spec, kind specs.LinuxNamespaceType) bool {
	return spec.Linux != nil && slices.ContainsFunc(spec.Linux.Namespaces, func(ns specs.LinuxNamespace) bool {
		return ns.Type == kind && ns.Path != ""
	})
}

// Check is the pre-flight alone: what of the job's container cannot be
// carried. It touches nothing.
func Check(ctx context.Context, j *job.Job) ([]record.Finding, error) {
	subsystems, err := Subsystems()
	if err != nil {
		return nil, err
	}
	src, err := openSource(j)
	if err != nil {
		return nil, err
	}
	var out []record.Finding
	for _, s := range subsystems.Instances(target.Env{Source: src, Workers: 1, Options: j.Options}) {
		p, ok := s.(control.Preflighter)
		if !ok {
			continue
		}
		found, err := control.Preflight(ctx, p)
		if err != nil {
			return out, fmt.Errorf("pre-flight of %s: %w", s.Name(), err)
		}
		out = append(out, found...)
	}
	return out, nil
}
