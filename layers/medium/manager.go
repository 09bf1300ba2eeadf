// SPDX-License-Identifier: Apache-2.0

package medium

import (
	"context"
	"fmt"
	"net/url"
	"path/filepath"
	"slices"
	"strings"
	"sync"
)

// PathScheme is the scheme of an address that is a plain path.
const PathScheme = "dir"

// Opener makes the instance of a medium for one event. The address has been
// parsed by ParseAddress. The context bounds the opening only.
type Opener func(ctx context.Context, address *url.URL, d Direction) (Medium, error)

// Manager knows the media by scheme. Media are inserted and removed while the
// system runs. Its methods are safe for concurrent use.
type Manager struct {
	mu    sync.Mutex
	media map[string]*entry
}

type entry struct {
	open  Opener
	users int
}

// Info describes an inserted medium.
type Info struct {
	Scheme string
	// Users is the number of open instances.
	Users int
}

// Insert adds a medium under its URL scheme.
func (m *Manager) Insert(scheme string, open Opener) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if _, ok := m.media[scheme]; ok {
		return fmt.Errorf("medium %q is inserted already: remove it first", scheme)
	}
	if m.media == nil {
		m.media = map[string]*entry{}
	}
	m.media[scheme] = &entry{open: open}
	return nil
}

// Remove takes a medium out. One with open instances is refused with ErrInUse.
func (m *Manager) Remove(scheme string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	e, ok := m.media[scheme]
	if !ok {
		return m.unknown(scheme)
	}
	if e.users > 0 {
		return fmt.Errorf("medium %q: %w by %d: end or abort what uses it first", scheme, ErrInUse, e.users)
	}
	delete(m.media, scheme)
	return nil
}

// List returns the inserted media, sorted by scheme.
func (m *Manager) List() []Info {
	m.mu.Lock()
	defer m.mu.Unlock()
	list := make([]Info, 0, len(m.media))
	for scheme, e := range m.media {
		list = append(list, Info{Scheme: scheme, Users: e.users})
	}
	slices.SortFunc(list, func(a, b Info) int { return strings.Compare(a.Scheme, b.Scheme) })
	return list
}

// Open opens the medium that address names. The medium counts as in use until
// the instance is closed.
func (m *Manager) Open(ctx context.Context, address string, d Direction) (Medium, error) {
	u, err := ParseAddress(address)
	if err != nil {
		return nil, err
	}
	m.mu.Lock()
	e, ok := m.media[u.Scheme]
	if !ok {
		err := m.unknown(u.Scheme)
		m.mu.Unlock()
		return nil, fmt.Errorf("open %s: %w", address, err)
	}
	e.users++
	m.mu.Unlock()
	instance, err := e.open(ctx, u, d)
	if err != nil {
		m.leave(e)
		return nil, err
	}
	return &counted{Medium: instance, leave: sync.OnceFunc(func() { m.leave(e) })}, nil
}

func (m *Manager) leave(e *entry) {
	m.mu.Lock()
	defer m.mu.Unlock()
	e.users--
}

// unknown is called with the lock held.
func (m *Manager) unknown(scheme string) error {
	known := make([]string, 0, len(m.media))
	for s := range m.media {
		known = append(known, s+":")
	}
	slices.Sort(known)
	return fmt.Errorf("%w %q: inserted are %s", ErrUnknown, scheme, strings.Join(known, " "))
}

// counted is an instance that the manager counts until it is closed.
type counted struct {
	Medium
	leave func()
}

// Unwrap returns the instance.
func (c *counted) Unwrap() Medium { return c.Medium }

func (c *counted) Close() error {
	defer c.leave()
	return c.Medium.Close()
}

// ParseAddress parses a URL or a path. A path, and dir: with one, must be
// absolute; it becomes the URL's Path, with every byte taken literally: a path
// may hold '?' and '%'. Options follow only in the dir: form ("dir:/p?sync=false").
func ParseAddress(address string) (*url.URL, error) {
	if filepath.IsAbs(address) {
		return &url.URL{Scheme: PathScheme, Path: filepath.Clean(address)}, nil
	}
	u, err := url.Parse(address)
	if err != nil {
		return nil, fmt.Errorf("address of a medium: %w", err)
	}
	if u.Scheme == "" {
		return nil, fmt.Errorf("address %q: give an absolute path or a URL such as dir:/path", address)
	}
	if u.Scheme == PathScheme && (u.Host != "" || !filepath.IsAbs(u.Path)) {
		return nil, fmt.Errorf("address %q: dir: takes an absolute path, dir:/path", address)
	}
	return u, nil
}
