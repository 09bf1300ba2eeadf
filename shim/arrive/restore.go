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
	"github.com/io-mig/mig/layers/request/peer"
	"github.com/io-mig/mig/spec/wire"
)

// restore finds the request by which a shim fills a copy's frame: the shim keeps
// its status, which outlives us.
type restore struct {
	dir, namespace, container, token string
	// journal is the directory in which engines write down how far a move is.
	journal string
	id      string // of the request once it was found
}

func (d *Daemon) restoreOf(namespace, container, token string) *restore {
	if t, err := wire.ParseToken(token); err == nil {
		token = t.String() // as requests have it
	}
	return &restore{dir: d.opts.State, journal: d.journals, namespace: namespace, container: container, token: token}
}

// status of the request; fs.ErrNotExist as long as there is none. It is found by its
// token: by its time it might be that of an earlier life of the id, when the clock was set.
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
		if st := all[i]; st.Kind == job.Restore && st.Container == r.container && st.Token == r.token {
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

// giveUp is abort for a reason. A copy that runs is the container: if it only waits for
// the rest of its memory, it is given up by the source's own word alone, which says that
// nobody can bring that any more, and not because somebody is not heard of.
func (r *restore) giveUp(why error) error {
	if told := new(peer.AbortedError); !errors.As(why, &told) && r.filling() {
		return nil
	}
	return r.abort()
}

// filling: the copy runs, and what was left behind at the switch is still to come.
func (r *restore) filling() bool {
	token, err := wire.ParseToken(r.token)
	if err != nil {
		return false
	}
	said, whole, err := journal.AnswerWhole(r.journal, token)
	return err == nil && said == handover.Running && !whole
}

// await returns whether the copy runs once the shim has told. Without a request
// nothing was restored, as far as the journal agrees.
func (r *restore) await(ctx context.Context) (running bool, err error) {
	for {
		st, err := r.status()
		switch {
		case errors.Is(err, fs.ErrNotExist):
			return r.unrecorded()
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
			if err := r.giveUp(context.Cause(ctx)); err != nil {
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

// errAtWork: a copy is being filled, or waits for the rest of its memory.
var errAtWork = errors.New("its engine is at work, or the copy runs and lacks memory, and there is no record of the request")

// unrecorded is what the journal says of a copy of whose request there is no record: it
// may have been forgotten, or /run was full when it began.
func (r *restore) unrecorded() (running bool, err error) {
	token, err := wire.ParseToken(r.token)
	if err != nil {
		return false, err
	}
	said, whole, err := journal.AnswerWhole(r.journal, token)
	switch {
	case errors.Is(err, journal.ErrUnknown):
		return false, nil
	case err != nil:
		return false, err
	case said == handover.Running && whole:
		return true, nil
	case said == handover.Running, said == handover.Ready:
		return false, errAtWork
	}
	return false, nil
}
