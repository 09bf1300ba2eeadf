// SPDX-License-Identifier: Apache-2.0

// Package memory exports and imports address spaces: the mappings and what is
// in them.
//
// Export: smaps names the mappings, PAGEMAP_SCAN the pages that hold something
// a file does not, process_vm_readv(2) copies them in chunks by several
// workers. Import: the task unmaps everything it had, maps what the image says
// at the image's addresses, and the pages are written straight into their
// final place: UFFDIO_COPY (userfaultfd(2)) makes those of anonymous memory, and
// process_vm_writev(2) writes what it cannot make. Protections come last.
//
// Sources: proc(5); Documentation/admin-guide/mm/pagemap.rst;
// process_vm_readv(2); prctl(2), PR_SET_MM_MAP.
package memory

import (
	"context"
	"errors"
	"fmt"
	"io"
	"runtime"
	"sync"
	"sync/atomic"

	"github.com/io-mig/mig/layers/kernel/target"
	"github.com/io-mig/mig/spec/payload"
	"github.com/io-mig/mig/spec/record"
)

// Name is what the subsystem's records are called by.
const Name = "memory"

// Subsystem is one event's memory.
type Subsystem struct {
	env     target.Env
	workers int

	bytes, total, entities atomic.Uint64
	notes                  atomic.Pointer[string]
	// leaving: what may come later stays behind at the switch of this export.
	leaving atomic.Bool
	// repeats: the destination of this export knows KindRepeated.
	repeats atomic.Bool

	mu      sync.Mutex
	exports map[record.ProcessID]*export
	aheads  map[record.ProcessID]*ahead
	lefts   map[record.ProcessID]*left
	looks   map[record.ProcessID]*foresight
	imports map[record.ProcessID]*layout
	// objects are the shared ones of an export, by what they are; shared those that an
	// import has made, by id.
	objects map[sharedKey]*sharedObject
	todo    []source // whose content was not exported yet
	listed  bool
	shared  map[uint64]*sharedCopy
	// located are the mapped files; files those that an import has made, by id.
	located located
	files   []uint64
	// copies says what the tasks of an import are copies of.
	copies map[*target.Task]ancestry
	family *family // of the export
	// huge is what an export needs of huge pages.
	huge hugeNeed
	// vdsos are the codes of vDSOs that are in the image, by their digests.
	vdsos map[string][]byte
}

// New makes the subsystem for one event.
func New(env target.Env) *Subsystem {
	w := env.Workers
	if w < 1 {
		w = runtime.GOMAXPROCS(0)
	}
	env.WillAsk(aboutBoundaries)
	s := &Subsystem{
		env: env, workers: w, copies: map[*target.Task]ancestry{}, vdsos: map[string][]byte{},
		exports: map[record.ProcessID]*export{},
		aheads:  map[record.ProcessID]*ahead{},
		lefts:   map[record.ProcessID]*left{},
		looks:   map[record.ProcessID]*foresight{},
		imports: map[record.ProcessID]*layout{},
		huge:    hugeNeed{asked: make(chan struct{})},
		objects: map[sharedKey]*sharedObject{}, shared: map[uint64]*sharedCopy{},
	}
	if env.Source != nil {
		env.Source.OnHeld(s.foresee)
	}
	if env.Frame != nil {
		env.Frame.OnFork(s.noteFork)
	}
	return s
}

// Name of the subsystem.
func (s *Subsystem) Name() string { return Name }

// Status counts the bytes of pages; Total is known once the pages were listed.
func (s *Subsystem) Status() record.Status {
	st := record.Status{Entities: s.entities.Load(), Bytes: s.bytes.Load(), Total: s.total.Load()}
	if n := s.notes.Load(); n != nil {
		st.Note = *n
	}
	return st
}

// note is shown in the status until the next one.
func (s *Subsystem) note(text string) { s.notes.Store(&text) }

// Fault cannot be served: an image at rest holds every page once. (Pages that
// were left behind on a live source are asked for by another strategy.)
func (s *Subsystem) Fault(_ context.Context, f record.Fault) error {
	return fmt.Errorf("memory: %s: no second copy to recover it from: %w", f.Header, errors.ErrUnsupported)
}

// Dump lists the address spaces of the event as far as they are known.
func (s *Subsystem) Dump(w io.Writer) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for id, e := range s.exports {
		fmt.Fprintf(w, "process %d: export of %d mappings, chunk %d of %d\n", id, len(e.mappings), e.next, len(e.chunks))
	}
	for id, l := range s.imports {
		fmt.Fprintf(w, "process %d: import of %d of %d mappings, mapped %v\n", id, len(l.mappings), l.space.GetMappings(), l.mapped)
		for _, m := range l.mappings {
			fmt.Fprintf(w, "  %x-%x prot %d %s %s\n", m.Start, m.Start+m.Length, m.Protection, m.Backing, m.Path)
		}
	}
	return nil
}

// buffers hold one record's pages each, with room for an index before them.
var buffers = payload.NewPool(pageSize, chunkBytes)

// warm readies the buffers that the workers of an export take.
func (s *Subsystem) warm() { warmed.Do(func() { buffers.Warm(s.workers) }) }

var warmed sync.Once
