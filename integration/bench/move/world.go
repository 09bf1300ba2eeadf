// SPDX-License-Identifier: Apache-2.0

// Package move moves containers between two hosts (package lab) with a
// containerd and a migd each, for the benchmark of live moves: the program under
// measurement is `mig migrate`, as users have it.
package move

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"

	"github.com/io-mig/mig/integration/bench/driver"
	"github.com/io-mig/mig/integration/internal/daemon"
	"github.com/io-mig/mig/integration/internal/image"
	"github.com/io-mig/mig/integration/internal/lab"
	"github.com/io-mig/mig/integration/internal/repo"
)

// World is two hosts on a bridge. Its methods are called one after the other.
type World struct {
	From, To *Host

	tree  repo.Tree
	lab   *lab.Lab
	dir   string // scratch, the caller's
	image image.Image
	// transports that the hosts speak.
	transports []Transport
}

// Host is one of them.
type Host struct {
	*lab.Host
	d     *daemon.Daemon
	tls   string // directory of its certificate
	migds []*migd
}

// New makes the hosts and gives From an image whose command is program, a static
// executable. dir is an existing directory for scratch files. The caller must
// Close the world.
func New(ctx context.Context, tree repo.Tree, dir, program string) (_ *World, err error) {
	w := &World{tree: tree, dir: dir, transports: []Transport{TLS, Plain}, image: image.Image{
		Name: "mig.test/victim:1", Command: []string{driver.ProgramPath}, Extra: map[string]string{driver.ProgramPath: program},
	}}
	if err := w.open(ctx, "alpha", "beta"); err != nil {
		return nil, err
	}
	if err := w.load(ctx, w.image); err != nil {
		return nil, errors.Join(err, w.Close())
	}
	return w, nil
}

// open makes the hosts, From and To first. After an error everything is closed.
func (w *World) open(ctx context.Context, names ...string) (err error) {
	if w.lab, err = lab.New(names...); err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, w.Close())
		}
	}()
	w.From, w.To = &Host{Host: w.lab.Hosts[0]}, &Host{Host: w.lab.Hosts[1]}
	if err := w.certs(ctx, "init"); err != nil {
		return err
	}
	for _, h := range w.hosts() {
		if err := w.setUp(ctx, h); err != nil {
			return fmt.Errorf("host %s: %w", h.Name, err)
		}
	}
	return nil
}

// load gives From an image.
func (w *World) load(ctx context.Context, i image.Image) error {
	archive, err := i.Write(w.dir)
	if err != nil {
		return err
	}
	return w.From.d.Import(ctx, archive)
}

func (w *World) hosts() []*Host { return []*Host{w.From, w.To} }

// setUp gives a host its certificate, its address for plain text if it is to speak
// that, its containerd and a migd for each transport.
func (w *World) setUp(ctx context.Context, h *Host) (err error) {
	if err := w.certs(ctx, "host", h.Name, "--ip", h.IP); err != nil {
		return err
	}
	h.tls = filepath.Join(w.authority(), "hosts", h.Name)
	if slices.Contains(w.transports, Plain) {
		if err := h.Run(fmt.Sprintf(plainScript, h.plain())); err != nil {
			return err
		}
	}
	h.d, err = daemon.Start(ctx, w.tree, daemon.Config{Version: daemon.V24, Enter: h.Enter(), Namespace: w.lab.Name})
	if err != nil {
		return err
	}
	for _, t := range w.transports {
		m, err := w.startMigd(ctx, h, t)
		if err != nil {
			return err
		}
		h.migds = append(h.migds, m)
	}
	return nil
}

func (w *World) authority() string { return filepath.Join(w.dir, "ca") }

// certs runs mig certs.
func (w *World) certs(ctx context.Context, args ...string) error {
	cmd := exec.CommandContext(ctx, w.tree.Bin("mig"), append([]string{"certs", "--dir", w.authority()}, args...)...)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("mig certs %v: %w: %s", args, err, out)
	}
	return nil
}

// Log is what the daemons said last, for a failure.
func (w *World) Log() string {
	var all string
	for _, h := range w.hosts() {
		for _, m := range h.migds {
			all += m.log + ":\n" + tail(m.says(), 2000) + "\n"
		}
		if h.d != nil {
			all += "containerd of " + h.Name + ":\n" + tail(h.d.Log(), 4000) + "\n"
		}
	}
	return all
}

func tail(s string, room int) string { return s[max(0, len(s)-room):] }

// Close ends everything and reports what it could not clean, and what moves have
// left behind on the hosts.
func (w *World) Close() error {
	var errs []error
	for _, h := range w.hosts() {
		if h == nil {
			continue
		}
		for _, m := range h.migds {
			if err := m.stop(); err != nil {
				errs = append(errs, fmt.Errorf("%s: %w", h.Name, err))
			}
		}
		if h.d == nil {
			continue
		}
		for _, leak := range h.d.Leaks() {
			errs = append(errs, fmt.Errorf("leaked on %s: %s", h.Name, leak))
		}
		errs = append(errs, h.d.Close())
	}
	return errors.Join(append(errs, w.lab.Close(), os.RemoveAll(w.authority()))...)
}
