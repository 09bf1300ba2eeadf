// SPDX-License-Identifier: Apache-2.0

package request

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// DefaultDir is where the statuses of a host are kept, one directory per
// namespace: DIR/NAMESPACE/requests/ID.json.
const DefaultDir = "/run/mig"

const (
	// maxStatus bounds a status file, in bytes, for writers and readers.
	maxStatus = 4 << 20
	// maxListed bounds how many statuses one listing reads.
	maxListed = 4096
	// DefaultKeep is how many ended requests a namespace remembers.
	DefaultKeep = 100
	// orphanAge is when the temporary file of a writer that died is removed.
	orphanAge = time.Minute
)

// name is what may be part of a path: containerd's identifiers (its package
// identifiers) and our ids.
var name = regexp.MustCompile(`^[A-Za-z0-9]+(?:[._-][A-Za-z0-9]+)*$`)

func checkName(what, s string) error {
	if len(s) > 128 || !name.MatchString(s) {
		return fmt.Errorf("%q is no valid %s", s, what)
	}
	return nil
}

// Store is the state directory of one namespace.
type Store struct{ dir string }

// OpenStore names the store of a namespace below dir ("" means DefaultDir). It
// creates nothing.
func OpenStore(dir, namespace string) (*Store, error) {
	if err := checkName("namespace", namespace); err != nil {
		return nil, err
	}
	if dir == "" {
		dir = DefaultDir
	}
	return &Store{dir: filepath.Join(dir, namespace, "requests")}, nil
}

// Namespaces lists those that have a store below dir.
func Namespaces(dir string) ([]string, error) {
	if dir == "" {
		dir = DefaultDir
	}
	es, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	var ns []string
	for _, e := range es {
		if _, serr := os.Stat(filepath.Join(dir, e.Name(), "requests")); e.IsDir() && checkName("namespace", e.Name()) == nil && serr == nil {
			ns = append(ns, e.Name())
		}
	}
	return ns, err
}

// write replaces a status whole: a reader sees the old or the new one.
func (s *Store) write(st *Status) error {
	if err := checkName("request id", st.ID); err != nil {
		return err
	}
	b, err := json.MarshalIndent(st, "", "  ")
	if err != nil {
		return fmt.Errorf("encode status %s: %w", st.ID, err)
	}
	if len(b) > maxStatus {
		return fmt.Errorf("status %s has %d bytes, more than the limit of %d", st.ID, len(b), maxStatus)
	}
	if err := os.MkdirAll(s.dir, 0o700); err != nil {
		return fmt.Errorf("directory of the statuses: %w", err)
	}
	f, err := os.CreateTemp(s.dir, ".tmp-*") // mode 0600
	if err != nil {
		return fmt.Errorf("write status %s: %w", st.ID, err)
	}
	_, werr := f.Write(append(b, '\n'))
	err = errors.Join(werr, f.Close())
	if err == nil {
		err = os.Rename(f.Name(), s.file(st.ID))
	}
	if err != nil {
		os.Remove(f.Name())
		return fmt.Errorf("write status %s: %w", st.ID, err)
	}
	return nil
}

func (s *Store) file(id string) string { return filepath.Join(s.dir, id+".json") }

// Read returns one status. It trusts neither the file's type nor its size, and
// says Lost of a request whose keeper has died.
func (s *Store) Read(id string) (*Status, error) {
	if err := checkName("request id", id); err != nil {
		return nil, err
	}
	f, err := os.OpenFile(s.file(id), os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("there is no request %s in %s: %w", id, s.dir, fs.ErrNotExist)
	}
	if err != nil {
		return nil, fmt.Errorf("read status %s: %w", id, err)
	}
	defer f.Close()
	if fi, err := f.Stat(); err != nil || !fi.Mode().IsRegular() {
		return nil, fmt.Errorf("read status %s: %s is no regular file", id, f.Name())
	}
	b, err := io.ReadAll(io.LimitReader(f, maxStatus+1))
	if err != nil {
		return nil, fmt.Errorf("read status %s: %w", id, err)
	}
	if len(b) > maxStatus {
		return nil, fmt.Errorf("status %s is larger than %d bytes", id, maxStatus)
	}
	var st Status
	if err := json.Unmarshal(b, &st); err != nil {
		return nil, fmt.Errorf("status %s: %w", id, err)
	}
	if st.ID != id {
		return nil, fmt.Errorf("status %s names itself %q", id, st.ID)
	}
	if !st.Phase.Final() && st.Owner.gone() {
		st.Phase = Lost
	}
	if st.Doubt != nil && st.Owner.gone() {
		st.Doubt = nil // it has died with its shim
	}
	return &st, nil
}

// List returns the statuses, the oldest first. Those that cannot be read are in
// the error; the others are returned all the same.
func (s *Store) List() ([]*Status, error) {
	ids, err := s.ids()
	if err != nil {
		return nil, err
	}
	var all []*Status
	var errs []error
	for _, id := range ids[max(0, len(ids)-maxListed):] {
		st, err := s.Read(id)
		if errors.Is(err, fs.ErrNotExist) {
			continue // pruned meanwhile
		}
		if err != nil {
			errs = append(errs, err)
			continue
		}
		all = append(all, st)
	}
	return all, errors.Join(errs...)
}

// ids lists the requests; ids sort by their time.
func (s *Store) ids() ([]string, error) {
	es, err := os.ReadDir(s.dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("list requests: %w", err)
	}
	var ids []string
	for _, e := range es {
		if id, ok := strings.CutSuffix(e.Name(), ".json"); ok && checkName("request id", id) == nil {
			ids = append(ids, id)
		}
	}
	slices.Sort(ids)
	return ids, nil
}

// prune forgets ended requests beyond the youngest keep, and what writers that
// died have left. Several processes may prune at once.
func (s *Store) prune(keep int, now time.Time) error {
	all, err := s.List()
	if len(all) == 0 && err != nil {
		return err
	}
	var over []string
	for _, st := range all {
		if st.Over() {
			over = append(over, s.file(st.ID))
		}
	}
	over = over[:max(0, len(over)-keep)]
	for _, f := range append(s.leftTemporary(), s.leftAborts(all)...) {
		if fi, err := os.Lstat(f); err == nil && now.Sub(fi.ModTime()) > orphanAge {
			over = append(over, f)
		}
	}
	var errs []error
	for _, f := range over {
		if err := os.Remove(f); err != nil && !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// leftTemporary are the files of writers, some of which may have died.
func (s *Store) leftTemporary() []string {
	files, _ := filepath.Glob(filepath.Join(s.dir, ".tmp-*")) // errs on a bad pattern only
	return files
}
