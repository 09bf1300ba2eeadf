// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/io-mig/mig/layers/request"
	"github.com/io-mig/mig/layers/request/address"
	"github.com/io-mig/mig/layers/request/job"
	"github.com/io-mig/mig/spec/wire"
)

const (
	moveOut = "move out"
	moveIn  = "move in"
)

// kind is what a request is, as a person calls it.
func kind(st *request.Status) string {
	switch {
	case st.Kind == job.Checkpoint && address.IsMove(st.Image):
		return moveOut
	case st.Kind == job.Restore && address.IsIncoming(st.Image):
		return moveIn
	}
	return string(st.Kind)
}

// where says what a request has to do with: the other host of a move, or the image.
func where(st *request.Status) string {
	switch kind(st) {
	case moveOut:
		if m, err := address.ParseMove(st.Image); err == nil {
			return m.Host
		}
	case moveIn:
		if in, err := address.ParseIncoming(st.Image); err == nil && in.From != "" {
			return in.From
		}
	}
	return st.Image
}

// stores says where the statuses of requests are.
type stores struct {
	dir, namespace string
}

func (s *stores) flags(c *cobra.Command) {
	c.Flags().StringVarP(&s.namespace, "namespace", "n", "", "containerd's namespace (all of them)")
	c.Flags().StringVar(&s.dir, "dir", request.DefaultDir, "directory of mig's state")
}

func (s *stores) namespaces() ([]string, error) {
	if s.namespace != "" {
		return []string{s.namespace}, nil
	}
	ns, err := request.Namespaces(s.dir)
	if err != nil {
		return nil, fmt.Errorf("requests of this host: %w", err)
	}
	return ns, nil
}

// list returns the requests, the newest first. Those that cannot be read are
// in the error; the others are returned all the same.
func (s *stores) list() ([]*request.Status, error) {
	namespaces, err := s.namespaces()
	if err != nil {
		return nil, err
	}
	var all []*request.Status
	var errs []error
	for _, ns := range namespaces {
		store, err := request.OpenStore(s.dir, ns)
		if err != nil {
			return nil, err
		}
		some, err := store.List()
		all = append(all, some...)
		if err != nil {
			errs = append(errs, fmt.Errorf("namespace %s: %w", ns, err))
		}
	}
	slices.SortFunc(all, func(a, b *request.Status) int {
		if c := b.Created.Compare(a.Created); c != 0 {
			return c
		}
		return strings.Compare(b.ID, a.ID)
	})
	return all, errors.Join(errs...)
}

// find returns the store that has a request, and its status. A move's token
// names its request, too.
func (s *stores) find(id string) (*request.Store, *request.Status, error) {
	namespaces, err := s.namespaces()
	if err != nil {
		return nil, nil, err
	}
	for _, ns := range namespaces {
		store, err := request.OpenStore(s.dir, ns)
		if err != nil {
			return nil, nil, err
		}
		st, err := store.Read(id)
		if err == nil {
			return store, st, nil
		}
		if !errors.Is(err, fs.ErrNotExist) {
			return nil, nil, err
		}
		if _, err := wire.ParseToken(id); err != nil {
			continue
		}
		all, _ := store.List() // what cannot be read has another token
		for _, st := range slices.Backward(all) {
			if st.Token == id {
				return store, st, nil
			}
		}
	}
	return nil, nil, fmt.Errorf("there is no request %s on this host (mig status lists them)", id)
}
