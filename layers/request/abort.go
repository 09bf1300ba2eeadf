// SPDX-License-Identifier: Apache-2.0

package request

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// A request is kept by one process, often a shim that nobody can call. To have
// it cancelled, another process puts an empty file ID.abort beside its status;
// the keeper looks for it while the request runs and removes it at the end.
// Who may write into the directory (root: its mode is 0700) may abort. Unlike a
// socket, a file needs no listener in the shim and cannot be used to hold one up.
const abortSuffix = ".abort"

// abortEvery is how often a keeper looks for the file.
const abortEvery = 100 * time.Millisecond

// ErrEnded is wrapped where a request is over already.
var ErrEnded = errors.New("the request has ended")

// Abort asks the process that keeps a request to cancel it: before its decision
// it is undone, afterwards it goes to its end. It does not wait: the status
// tells. Asking twice is asking once.
//
// Errors: fs.ErrNotExist for an unknown request, ErrEnded for one that is over.
func (s *Store) Abort(id string) error {
	if err := s.underway(id); err != nil {
		return err
	}
	f, err := os.OpenFile(s.abortFile(id), os.O_CREATE|os.O_WRONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0o600)
	if err != nil {
		return fmt.Errorf("abort request %s: %w", id, err)
	}
	if err := f.Close(); err != nil {
		return fmt.Errorf("abort request %s: %w", id, err)
	}
	// It may have ended between the first look and the file, which nobody would
	// remove then.
	if err := s.underway(id); err != nil {
		s.forgetAbort(id)
		return err
	}
	return nil
}

// underway returns nil if the request can still be cancelled.
func (s *Store) underway(id string) error {
	st, err := s.Read(id)
	if err != nil {
		return err
	}
	if st.Phase.Final() {
		return fmt.Errorf("request %s: %w: it is %s", id, ErrEnded, st.Phase)
	}
	return nil
}

func (s *Store) abortFile(id string) string { return filepath.Join(s.dir, id+abortSuffix) }

func (s *Store) abortAsked(id string) bool {
	_, err := os.Lstat(s.abortFile(id))
	return err == nil
}

func (s *Store) forgetAbort(id string) { _ = os.Remove(s.abortFile(id)) }

// leftAborts are the files of requests whose keeper is gone.
func (s *Store) leftAborts(all []*Status) (files []string) {
	underway := map[string]bool{}
	for _, st := range all {
		underway[st.ID] = !st.Phase.Final()
	}
	es, err := os.ReadDir(s.dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	for _, e := range es {
		if id, ok := strings.CutSuffix(e.Name(), abortSuffix); ok && !underway[id] {
			files = append(files, s.abortFile(id))
		}
	}
	return files
}

// heed cancels the request when another process has asked for it.
func (h *Handle) heed() {
	t := time.NewTicker(abortEvery)
	defer t.Stop()
	for {
		select {
		case <-h.done:
			return
		case <-t.C:
		}
		if h.m.store.abortAsked(h.ID()) {
			h.Cancel()
			return
		}
	}
}
