// SPDX-License-Identifier: Apache-2.0

package arrive

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"time"

	"github.com/io-mig/mig/layers/control/handover"
	"github.com/io-mig/mig/layers/request"
	"github.com/io-mig/mig/layers/request/job"
	"github.com/io-mig/mig/layers/request/journal"
	"github.com/io-mig/mig/spec/wire"
)

// restore finds the request by which a shim fills a copy's frame: the shim keeps
// its status, which outlives us.
type restore struct {
	dir, namespace, container, token string
	// journal is the directory in which engines write down how far a move is.
	journal string
	// since: requests that are older belong to another life of the id.
	since time.Time
	id    string // of the request once it was found
}

func (d *Daemon) restoreOf(namespace, container, token string, since time.Time) *restore {
	return &restore{dir: d.opts.State, journal: journal.Dir, namespace: namespace, container: container, token: token, since: since}
}

// status of the request; fs.ErrNotExist as long as there is none.
func (r *restore) status() (*request.Status, error) {
	store, err := request.OpenStore(r.dir, r.namespace)
	if err != nil {
		return nil, err
	}
	if r.id != "" {
		return store.Read(r.id)
	}
	all, err := store.List() // what cannot be read is not ours
	for i := len(all) - 1; i >= 0; i-- {
		if st := all[i]; st.Kind == job.Restore && st.Container == r.container && (st.Token == r.token || !st.Created.Before(r.since)) {
			r.id = st.ID
			return st, nil
		}
	}
	if err != nil {
		return nil, err
	}
	return nil, fmt.Errorf("there is no restore of container %s: %w", r.container, fs.ErrNotExist)
}

// abort asks the shim to undo the restore, if that is still possible.
func (r *restore) abort() error {
	st, err := r.status()
	if errors.Is(err, fs.ErrNotExist) {
		return nil // not begun: asked again
	}
	if err != nil {
		return err
	}
	store, err := request.OpenStore(r.dir, r.namespace)
	if err != nil {
		return err
	}
	if err := store.Abort(st.ID); err != nil && !errors.Is(err, request.ErrEnded) {
		return err
	}
	return nil
}

// await returns whether the copy runs once the shim has told. Without a request
// nothing was restored.
func (r *restore) await(ctx context.Context) (running bool, err error) {
	for {
		st, err := r.status()
		switch {
		case errors.Is(err, fs.ErrNotExist):
			return false, nil
		case err != nil:
			return false, err
		case st.Phase == request.Succeeded:
			return true, nil
		case st.Phase.Final():
			return r.arrived(st.ID)
		}
		select {
		case <-ctx.Done():
			// Who waits has given up; the outcome decides all the same.
			if err := r.abort(); err != nil {
				return false, err
			}
			time.Sleep(reportEvery)
		case <-time.After(reportEvery):
		}
	}
}

// arrived reports whether the copy runs, and is whole, though its engine has failed.
func (r *restore) arrived(request string) (bool, error) {
	token, err := wire.ParseToken(r.token)
	if err != nil {
		return false, err
	}
	said, whole, err := journal.CopyOf(r.journal, token, request)
	if errors.Is(err, journal.ErrUnknown) {
		return false, nil
	}
	return err == nil && said == handover.Running && whole, err
}
