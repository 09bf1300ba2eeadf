// SPDX-License-Identifier: Apache-2.0

package arrive

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"sync"
	"time"

	"github.com/io-mig/mig/shim/host"
	"github.com/io-mig/mig/spec/wire"
)

// Resume is Recover for the start of a daemon: what cannot be seen to at once is
// tried again, in the background, until ctx ends.
func (d *Daemon) Resume(ctx context.Context) {
	go d.watchHeld(ctx)
	if err := d.Recover(ctx); err != nil && ctx.Err() == nil {
		d.opts.Log.Error("moves that were left unfinished", "error", err)
		d.again(ctx)
	}
}

// Recover sees to what a daemon before this one has left: copies that are being
// filled are waited for, those that run are finished, everything else is
// removed. It returns when all of that has ended, or with ctx. New moves may be
// served meanwhile.
func (d *Daemon) Recover(ctx context.Context) error {
	namespaces := d.opts.Namespaces
	if len(namespaces) == 0 {
		var err error
		if namespaces, err = d.opts.Host.Namespaces(ctx); err != nil {
			return fmt.Errorf("look for unfinished moves: %w", err)
		}
	}
	var left []host.Unfinished
	var errs []error
	for _, ns := range namespaces {
		some, err := d.opts.Host.Unfinished(ctx, ns)
		left, errs = append(left, some...), append(errs, err)
	}
	left = slices.DeleteFunc(left, func(u host.Unfinished) bool { return d.underWay(u.Token) })
	var wg sync.WaitGroup
	results := make([]error, len(left))
	for i, u := range left {
		wg.Go(func() { results[i] = d.resolve(ctx, u) })
	}
	wg.Wait()
	return errors.Join(append(errs, results...)...)
}

// resolve ends one move that is left.
func (d *Daemon) resolve(ctx context.Context, u host.Unfinished) error {
	log := d.opts.Log.With("token", u.Token, "namespace", u.Namespace, "container", u.Container)
	running, err := d.settled(ctx, u)
	if err != nil {
		return fmt.Errorf("move %s of container %s: %w", u.Token, u.Container, err)
	}
	if running {
		log.Info("a move that was left unfinished has arrived")
		return d.opts.Host.Finish(ctx, u.Namespace, u.Container, u.Token)
	}
	log.Info("a move that was left unfinished is removed")
	if u.Container != "" {
		if err := errors.Join(d.opts.Unguard(nameOf(u.Token)), d.opts.Unplug(nameOf(u.Token)), d.opts.CNI.Disconnect(ctx, u.Namespace, u.Container, u.Network)); err != nil {
			log.Error("a move that was left unfinished", "error", err)
		}
	}
	err = d.opts.Host.Discard(ctx, u.Namespace, u.Container, u.Token, false)
	if u.Network != nil && u.Network.CNI() {
		// A plug-in outlives the daemon that has run it, and may have been at work
		// until its container's namespace was gone.
		err = errors.Join(err, d.opts.CNI.Disconnect(ctx, u.Namespace, u.Container, u.Network))
	}
	return err
}

// Times between two attempts to see to what could not be undone.
const (
	firstAgain = time.Second
	lastAgain  = 30 * time.Second
)

// again sees to what a move has left that could not be undone or finished, until
// that has worked: containerd may be gone for a while. It returns at once. One at a time is
// enough, since it sees to all that is left.
func (d *Daemon) again(ctx context.Context) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.untidy = true
	if !d.tidying {
		d.tidying = true
		go d.tidy(ctx)
	}
}

func (d *Daemon) tidy(ctx context.Context) {
	for pause := firstAgain; ; pause = min(2*pause, lastAgain) {
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return // the next daemon does
		}
		d.mu.Lock()
		d.untidy = false
		d.mu.Unlock()
		if err := d.Recover(ctx); err != nil {
			d.opts.Log.Warn("what a move has left cannot be removed yet", "error", err)
			continue
		}
		d.mu.Lock()
		d.tidying = d.untidy // something may have been left meanwhile
		over := !d.tidying
		d.mu.Unlock()
		if over {
			return
		}
	}
}

// settled waits for the copy's fate.
func (d *Daemon) settled(ctx context.Context, u host.Unfinished) (running bool, err error) {
	if u.Container == "" {
		return false, nil // it had not got as far as a container
	}
	r := d.restoreOf(u.Namespace, u.Container, u.Token)
	defer d.expect(u.Token)()
	for {
		st, err := r.status()
		if errors.Is(err, fs.ErrNotExist) {
			if running, err := r.unrecorded(); running || err != nil {
				return running, err
			}
			return d.withoutRecord(ctx, u)
		}
		if err != nil {
			return false, err
		}
		if st.Phase.Final() {
			return r.await(ctx)
		}
		select {
		case <-ctx.Done():
			return false, fmt.Errorf("stopped waiting for its end: %w", context.Cause(ctx))
		case <-time.After(reportEvery):
		}
	}
}

// expect has connections of a move that this daemon did not begin passed on: its
// engine has come back for more of them, and its source may have lost one.
func (d *Daemon) expect(token string) (forget func()) {
	t, err := wire.ParseToken(token)
	if err == nil {
		if _, forget, err = d.opts.Acceptor.Expect(t); err == nil {
			return forget
		}
	}
	d.opts.Log.Warn("connections of a move that was left unfinished", "token", token, "error", err)
	return func() {}
}

// withoutRecord: no shim was asked to fill the frame. A task that runs all the
// same is not ours to judge.
func (d *Daemon) withoutRecord(ctx context.Context, u host.Unfinished) (bool, error) {
	runs, pid, err := d.opts.Host.Runs(ctx, u.Namespace, u.Container)
	if err == nil && runs {
		err = fmt.Errorf("its task runs (pid %d), but nothing tells how it came to be: look at it and remove its label %s, or the container", pid, host.LabelIncoming)
	}
	return false, err
}
