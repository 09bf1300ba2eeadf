// SPDX-License-Identifier: Apache-2.0

package target

import (
	"fmt"
	"sort"
	"sync"

	"golang.org/x/sys/unix"
)

// Resource is what kcmp(2) can compare.
type Resource int

// The resources, with the values of include/uapi/linux/kcmp.h.
const (
	ResourceFile    Resource = 0
	ResourceVM      Resource = 1
	ResourceFiles   Resource = 2
	ResourceFS      Resource = 3
	ResourceSighand Resource = 4
	ResourceIO      Resource = 5
	ResourceSysVSem Resource = 6
)

// kcmp compares a resource of two tasks: 0 equal, 1 less, 2 greater in an
// order that the kernel keeps stable while both live.
func kcmp(pid1, pid2 int, r Resource, a, b uintptr) (int, error) {
	n, _, e := unix.Syscall6(unix.SYS_KCMP, uintptr(pid1), uintptr(pid2), uintptr(r), a, b, 0)
	if e != 0 {
		return 0, fmt.Errorf("kcmp(%d, %d, type %d): %w", pid1, pid2, r, e)
	}
	return int(n), nil
}

// identities gives equal kernel objects equal ids. Objects are compared only
// within a class (for files: the link's text), and kept in the kernel's own
// order, so that a lookup costs O(log n) comparisons.
type identities struct {
	mu      sync.Mutex
	next    uint64
	classes map[string][]identity
}

type identity struct {
	pid int
	obj uintptr
	id  uint64
}

// id returns the object's id and whether this is the first time it is seen.
func (t *identities) id(r Resource, class string, pid int, obj uintptr) (uint64, bool, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.classes == nil {
		t.classes = map[string][]identity{}
	}
	list := t.classes[class]
	var failed error
	equal := -1
	at := sort.Search(len(list), func(i int) bool {
		if failed != nil || equal >= 0 {
			return true
		}
		c, err := kcmp(list[i].pid, pid, r, list[i].obj, obj)
		if err != nil {
			failed = err
			return true
		}
		if c == 0 {
			equal = i
			return true
		}
		return c == 2 // the known one is greater than ours
	})
	if failed != nil {
		return 0, false, failed
	}
	if equal >= 0 {
		return list[equal].id, false, nil
	}
	t.next++
	list = append(list, identity{})
	copy(list[at+1:], list[at:])
	list[at] = identity{pid, obj, t.next}
	t.classes[class] = list
	return t.next, true, nil
}

// Sharers finds tasks that share a resource with each other.
type Sharers struct {
	resource Resource
	ids      identities
	pids     map[uint64]int
}

// NewSharers is for one resource of whole tasks.
func NewSharers(r Resource) *Sharers { return &Sharers{resource: r, pids: map[uint64]int{}} }

// Add looks at another task and returns one that shares the resource with it,
// 0 if there is none so far. A task that ends makes it fail (ESRCH).
func (s *Sharers) Add(pid int) (int, error) {
	id, first, err := s.ids.id(s.resource, "", pid, 0)
	if err != nil || !first {
		return s.pids[id], err
	}
	s.pids[id] = pid
	return 0, nil
}
