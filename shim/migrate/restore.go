// SPDX-License-Identifier: Apache-2.0

package migrate

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"github.com/io-mig/mig/layers/engine/names"
	"github.com/io-mig/mig/layers/kernel/tracer"
	"github.com/io-mig/mig/layers/medium/directory"
	"github.com/io-mig/mig/layers/request"
	"github.com/io-mig/mig/layers/request/address"
	"github.com/io-mig/mig/layers/request/job"
	"github.com/io-mig/mig/layers/request/journal"
	"github.com/io-mig/mig/runtime"
	"github.com/io-mig/mig/shim"
	"github.com/io-mig/mig/shim/describe"
)

// restore is one restore between its preparation and its end.
type restore struct {
	manager *request.Manager
	request shim.RestoreRequest
	frame   runtime.Frame
	// from is where a moved container comes from, nil for an image.
	from    *address.Incoming
	journal string
	// handle is the request, nil until Run.
	handle *request.Handle
	// engine starts while the frame is created.
	engine *request.Prepared
	// socket is the engine's end of the pair whose other end the frame has.
	socket *os.File
}

// PrepareRestore opens the image, so that a damaged or missing one is found
// before anything is created, and makes what a frame needs.
func (m *Migrator) PrepareRestore(_ context.Context, r shim.RestoreRequest) (_ shim.Restore, err error) {
	manager, err := m.manager(r.Namespace)
	if err != nil {
		return nil, err
	}
	if filepath.IsAbs(r.Image) {
		im, err := directory.OpenImage(r.Image)
		if err != nil {
			return nil, err
		}
		if err := im.Close(); err != nil {
			return nil, err
		}
	}
	x := &restore{manager: manager, request: r, journal: m.journal()}
	if address.IsIncoming(r.Image) {
		from, err := address.ParseIncoming(r.Image)
		if err != nil {
			return nil, err
		}
		x.from = &from
	}
	x.engine = manager.Prepare()
	defer func() {
		if err != nil {
			_ = x.Close()
		}
	}()
	if x.frame.ELF, err = tracer.FrameFile(); err != nil {
		return nil, err
	}
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("socket pair for the frame: %w", err)
	}
	x.socket = os.NewFile(uintptr(pair[0]), "engine's end of the frame's socket")
	x.frame.Socket = os.NewFile(uintptr(pair[1]), "frame's socket")
	return x, nil
}

// Frame is what the container is to be created with.
func (x *restore) Frame() *runtime.Frame { return &x.frame }

// Run turns the created frame container into the tasks of the image.
func (x *restore) Run(ctx context.Context, c *runtime.Container) error {
	seized, tell, err := os.Pipe()
	if err != nil {
		return err
	}
	defer seized.Close()
	defer tell.Close()
	j, err := x.job(c)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	h, err := x.manager.SubmitTo(ctx, x.engine, j, x.socket, tell)
	if err != nil {
		return err
	}
	x.handle = h
	tell.Close() // the engine has its own: its death ends the pipe
	released := make(chan error, 1)
	go func() {
		err := release(ctx, seized, c)
		if err != nil {
			cancel() // the engine would wait in vain
		}
		released <- err
	}()
	err = h.Wait(context.WithoutCancel(ctx))
	seized.Close()
	switch {
	case x.from == nil:
	case err != nil:
		err = x.fate(c, err)
	default:
		x.ran()
	}
	if err != nil {
		cancel()
	}
	if r := <-released; err == nil || !errors.Is(r, errNotSeized) {
		err = errors.Join(err, r)
	}
	return err
}

// ran sees to it that the journal says that the copy runs: it is asked by the source.
func (x *restore) ran() {
	const every = time.Second
	note := func() bool {
		err := journal.Ran(x.journal, x.from.Token, x.handle.ID())
		if err != nil && !errors.Is(err, journal.ErrUnknown) {
			slog.Error("that the copy runs is not written down yet", "container", x.request.ID, "token", x.from.Token, "error", err)
			return false
		}
		return true
	}
	if note() {
		return
	}
	go func() {
		for time.Sleep(every); !note(); time.Sleep(every) {
		}
	}()
}

// fate is nil if the copy runs though its engine has failed. A journal that cannot be read
// or written (on a full disk) says nothing about the copy, which may be the only one by
// now: it is asked again, for as long as there is a copy.
func (x *restore) fate(c *runtime.Container, cause error) error {
	const slowest = time.Second
	for pause, said := 10*time.Millisecond, false; ; pause = min(2*pause, slowest) {
		err := arrived(x.journal, *x.from, x.handle.ID(), cause)
		if unclear := new(unclearError); !errors.As(err, &unclear) {
			return err
		}
		if st, serr := c.Status(); serr == nil && st.State == runtime.StateStopped {
			return err
		}
		if !said {
			slog.Error("it is not known whether the copy runs, and nobody ends it before it is", "container", x.request.ID, "token", x.from.Token, "error", err)
			said = true
		}
		time.Sleep(pause)
	}
}

// errNotSeized: the engine ended before it had the frame. Its own error says
// why.
var errNotSeized = errors.New("the engine did not seize the frame")

// release lets the frame exec its program as soon as the engine has seized it.
func release(ctx context.Context, seized *os.File, c *runtime.Container) error {
	var b [1]byte
	if n, err := seized.Read(b[:]); n != 1 {
		return fmt.Errorf("%w: %w", errNotSeized, err)
	}
	return c.ReleaseFrame(ctx)
}

// job describes the restore to the engine. The spec is the live request's, as
// the shim has changed it, not the bundle's file.
func (x *restore) job(c *runtime.Container) (job.Job, error) {
	r := x.request
	spec, err := json.Marshal(r.Spec)
	if err != nil {
		return job.Job{}, fmt.Errorf("encode the OCI configuration: %w", err)
	}
	j := job.Job{
		Kind: job.Restore, Container: r.ID, Bundle: r.Bundle, Rootfs: filepath.Join(r.Bundle, "rootfs"),
		Spec: spec, Image: r.Image, Options: describe.Options(r.Spec.Annotations),
		Files: []string{names.FrameSocket, names.FrameSeized}, Journal: x.journal,
	}
	if x.from != nil {
		j.Token = x.from.Token.String()
	}
	return j, describe.Container(&j, c)
}

// Close frees the frame's files, and what was held for an engine that failed: by
// now whatever that guarded has been killed.
func (x *restore) Close() error {
	if x.handle != nil {
		x.handle.Release()
	}
	var errs []error
	if x.engine != nil {
		x.engine.Close()
	}
	for _, f := range []*os.File{x.frame.ELF, x.frame.Socket, x.socket} {
		if f != nil {
			errs = append(errs, f.Close())
		}
	}
	return errors.Join(errs...)
}
