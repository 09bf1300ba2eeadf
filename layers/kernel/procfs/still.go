// SPDX-License-Identifier: Apache-2.0

package procfs

import (
	"maps"
	"slices"
	"sync"
)

// still keeps what was read of tasks that are stopped.
type still struct {
	mu    sync.Mutex
	files map[string]any // parsed, by their names
}

// keptFiles are those whose content only the task itself changes, as far as this
// package parses them; or its parent and other relatives, which are stopped
// when it is. Signals that arrive meanwhile show in status all the same: who
// wants to know which are pending asks ptrace(2).
var keptFiles = map[string]bool{
	"status": true, "stat": true, "limits": true, "auxv": true, "uid_map": true, "gid_map": true, "maps": true, "ns": true, "timers": true,
}

// Still is the same task, which is stopped: what cannot change meanwhile is read
// once. The result is for as long as it stays so.
func (t Task) Still() Task {
	t.fs.still = &still{files: map[string]any{}}
	return t
}

// Fresh is the task without what Still has kept: for what the remote calls of a
// tracer change, the sizes of memory above all.
func (t Task) Fresh() Task {
	t.fs.still = nil
	return t
}

// once is read, which it calls for the first time only where that is allowed.
func once[T any](t Task, name string, read func() (T, error)) (T, error) {
	s := t.fs.still
	if s == nil || !keptFiles[name] {
		return read()
	}
	key := t.file(name)
	s.mu.Lock()
	known, ok := s.files[key]
	s.mu.Unlock()
	if ok {
		return known.(T), nil
	}
	v, err := read()
	if err == nil {
		s.mu.Lock()
		s.files[key] = v
		s.mu.Unlock()
	}
	return v, err
}

// stillMaps is once for maps, whose callers may change what they get.
func (t Task) stillMaps() ([]Mapping, error) {
	list, err := once(t, "maps", func() ([]Mapping, error) {
		p := mapsParser{}
		err := t.fs.stream(t.file("maps"), p.line)
		return p.out, err
	})
	return slices.Clone(list), err
}

// stillNamespaces is once for all links of ns.
func (t Task) stillNamespaces(read func() (map[string]NSLink, error)) (map[string]NSLink, error) {
	list, err := once(t, "ns", read)
	return maps.Clone(list), err
}
