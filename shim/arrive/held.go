// SPDX-License-Identifier: Apache-2.0

package arrive

import (
	"context"
	"errors"
	"time"

	"github.com/io-mig/mig/layers/request"
	"github.com/io-mig/mig/layers/request/address"
	"github.com/io-mig/mig/layers/request/journal"
	"github.com/io-mig/mig/spec/wire"
)

// heldEvery is how often containers of this host are looked for whose restart policy a
// mig has held that died.
const heldEvery = 10 * time.Second

// watchHeld gives containers back to containerd's restart policy that have stayed here,
// until ctx ends.
func (d *Daemon) watchHeld(ctx context.Context) {
	t := time.NewTicker(heldEvery)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-t.C:
		}
		if err := d.releaseHeld(ctx); err != nil && ctx.Err() == nil {
			d.opts.Log.Warn("restart policies that a move has held", "error", err)
		}
	}
}

func (d *Daemon) releaseHeld(ctx context.Context) error {
	namespaces, err := d.opts.Host.Namespaces(ctx)
	if err != nil {
		return err
	}
	var errs []error
	for _, ns := range namespaces {
		ids, err := d.opts.Host.Held(ctx, ns)
		errs = append(errs, err)
		for _, id := range ids {
			errs = append(errs, d.releaseOne(ctx, ns, id))
		}
	}
	return errors.Join(errs...)
}

// releaseOne gives back one that nobody moves. It may have ended, or left, since it was
// listed, so it is looked at again when no mig can begin to move it.
func (d *Daemon) releaseOne(ctx context.Context, namespace, id string) error {
	lock, err := d.opts.Host.LockMove(namespace, id)
	if err != nil {
		return nil // its mig sees to it
	}
	defer lock.Close()
	leaves, err := leaving(d.opts.State, d.journals, namespace, id)
	if err != nil || leaves {
		return err
	}
	running, err := d.opts.Host.Held(ctx, namespace)
	if err != nil {
		return err
	}
	for _, other := range running {
		if other == id {
			d.opts.Log.Info("the restart policy of a container that has not moved is back", "namespace", namespace, "container", id)
			return d.opts.Host.ReleaseRestart(ctx, namespace, id)
		}
	}
	return nil
}

// leaving: a move of the container is under way, or it has left, or nobody knows. What
// counts is the last thing that was done with the id: it may have been here before.
func leaving(requests, journals, namespace, id string) (bool, error) {
	store, err := request.OpenStore(requests, namespace)
	if err != nil {
		return false, err
	}
	all, err := store.List()
	if err != nil {
		return false, err // it may be one of those that cannot be read
	}
	for i := len(all) - 1; i >= 0; i-- {
		st := all[i]
		if st.Container != id {
			continue
		}
		if !st.Over() {
			return true, nil
		}
		token, err := wire.ParseToken(st.Token)
		if err != nil || !address.IsMove(st.Image) {
			return false, nil // no move away
		}
		stays, final, err := journal.Stays(journals, token)
		return !stays || !final, err
	}
	return false, nil
}
