// SPDX-License-Identifier: Apache-2.0

package memory

import (
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"

	"github.com/io-mig/mig/layers/kernel/procfs"
	"github.com/io-mig/mig/layers/kernel/target"
	"github.com/io-mig/mig/spec/record"
)

// Huge pages come out of pools, which may be too small at the destination of a move.
// It tells the source what it has before it is prepared, so that a container that
// would not fit is refused while it runs.

// verbHuge is a destination's command to its source: its huge pages. The answer's
// body says what is lacking, and is empty if nothing is. verbHugeSegments comes before
// it: this version makes System V shared memory of them, too.
const (
	verbHuge         = "huge-pages"
	verbHugeSegments = "huge-segments"
)

// maxHugeSizes bounds the sizes of huge pages that a host may name.
const maxHugeSizes = 16

// hugeNeed is what the pre-flight has found of the huge pages of a container.
type hugeNeed struct {
	// asked is closed when the pre-flight has seen all processes.
	asked chan struct{}
	once  sync.Once

	mu sync.Mutex
	// Below: guarded by mu.
	objects map[hugeObject]*hugeUse
	// segments are System V shared memory, attached or not, which has all of its pages
	// reserved. (Whether it was made with SHM_NORESERVE the kernel does not tell.)
	segments []target.HugeSegment
	trees    []target.HugeTree // of files with a name
	// told: the destination has said what it has, toldSegments: it carries System V
	// shared memory.
	told, toldSegments bool
}

// hugeObject is what shares its huge pages: the mappings of a file, also in forked
// processes. Private ones have pages of their own.
type hugeObject struct {
	dev     procfs.Dev
	inode   uint64
	private bool
}

// hugeUse is what the mappings of an object take of a pool.
type hugeUse struct {
	size     uint64         // of a page
	reserved pageSet        // offsets that mmap(2) has reserved pages for
	present  map[int]uint64 // bytes that are there, by process
}

// pages is at least how many there have to be. (Those that processes have for
// themselves since a fork are not counted.)
func (u *hugeUse) pages() uint64 {
	n := u.reserved.bytes()
	for _, p := range u.present {
		n = max(n, p)
	}
	return n / u.size
}

// ask begins a pre-flight; the function that it returns ends it.
func (h *hugeNeed) ask() (end func()) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.objects = map[hugeObject]*hugeUse{}
	return func() { h.once.Do(func() { close(h.asked) }) } // there may be a second one
}

// note takes in a mapping of a process.
func (h *hugeNeed) note(pid int, m *procfs.SmapsMapping) {
	if !m.Flags.Has(procfs.VMHugeTLB) || m.KernelPageSize == 0 || m.Kind == procfs.MapSysV {
		return
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	key := hugeObject{m.Dev, m.Inode, !m.Shared}
	u := h.objects[key]
	if u == nil {
		u = &hugeUse{size: m.KernelPageSize, present: map[int]uint64{}}
		h.objects[key] = u
	}
	if !m.Flags.Has(procfs.VMNoReserve) {
		u.reserved = u.reserved.union(pageSet{{m.Offset, m.Offset + m.Len()}})
	}
	u.present[pid] += m.SharedHugetlb + m.PrivateHugetlb
}

// needs are the pages that the container needs, by their size.
func (h *hugeNeed) needs() map[uint64]uint64 {
	h.mu.Lock()
	defer h.mu.Unlock()
	n := map[uint64]uint64{}
	on := map[procfs.Dev]uint64{}
	for key, u := range h.objects {
		n[u.size] += u.pages()
		if !key.private {
			on[key.dev] += u.pages()
		}
	}
	for _, t := range h.trees { // what a file system keeps for its files
		if least := t.Least / t.Page; least > on[t.Dev] {
			n[t.Page] += least - on[t.Dev]
		}
	}
	for _, g := range h.segments {
		n[g.Page] += g.Size / g.Page
	}
	return n
}

// noteTrees takes in the files on the container's own file systems of huge pages, which
// may be mapped, too.
func (h *hugeNeed) noteTrees(list []target.HugeTree) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.trees = list
	for _, t := range list {
		for inode, bytes := range t.Files {
			key := hugeObject{t.Dev, inode, false}
			if h.objects[key] == nil {
				h.objects[key] = &hugeUse{size: t.Page, present: map[int]uint64{}}
			}
			const nobody = 0 // of the processes
			h.objects[key].present[nobody] = bytes
		}
	}
}

// noteSegments takes in the System V shared memory of huge pages.
func (h *hugeNeed) noteSegments(list []target.HugeSegment) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.segments = list
}

// promised refuses a container with huge pages whose destination has not said that it
// can make such.
func (h *hugeNeed) promised(move bool) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	const remedy = "which the destination's version of mig does not carry: upgrade it there"
	switch {
	case !move:
	case !h.told && len(h.objects)+len(h.segments) > 0:
		return errors.New("the container has huge pages (hugetlb), " + remedy)
	case !h.toldSegments && len(h.segments) > 0:
		return errors.New("the container has System V shared memory of huge pages (SHM_HUGETLB), " + remedy)
	}
	return nil
}

// segmentsCarried takes the destination's word that it carries System V shared memory.
func (h *hugeNeed) segmentsCarried() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.toldSegments = true
}

// answer is the source's to verbHuge, when it knows what it needs.
func (h *hugeNeed) answer(ctx context.Context, c record.Command) (record.Command, error) {
	free, err := decodeHuge(c.Body)
	if err != nil {
		return record.Command{}, err
	}
	select {
	case <-h.asked:
	case <-ctx.Done():
		return record.Command{}, ctx.Err()
	}
	lack := lacking(h.needs(), free)
	h.mu.Lock()
	h.told = h.told || lack == ""
	h.mu.Unlock()
	return record.Command{To: Name, Verb: c.Verb, Body: []byte(lack)}, nil
}

// lacking says what a host with these free pages has too few of, "" if it suffices.
func lacking(needs, free map[uint64]uint64) string {
	var list []string
	for _, size := range slices.Sorted(maps.Keys(needs)) {
		has, ok := free[size]
		switch {
		case needs[size] == 0 && ok, has >= needs[size] && ok:
		case !ok:
			list = append(list, fmt.Sprintf("huge pages of %s, a size that its kernel does not have", target.HugeName(size)))
		default:
			list = append(list, fmt.Sprintf("%d huge pages of %s, and %d are free there (/sys/kernel/mm/hugepages/hugepages-%dkB/nr_hugepages)", needs[size], target.HugeName(size), has, size>>10))
		}
	}
	if len(list) == 0 {
		return ""
	}
	return "the container needs " + strings.Join(list, "; ")
}

// offerHuge tells the source, on the destination, what huge pages there are. One of an
// earlier version does not know the command, and carries none.
func (s *Subsystem) offerHuge(ctx context.Context) error {
	sizes, err := target.HugeSizes()
	if err != nil {
		return err
	}
	free := map[uint64]uint64{}
	for _, size := range sizes {
		if free[size], err = target.HugeFree(size); err != nil {
			return err
		}
	}
	if _, err := s.env.Peer.Command(ctx, record.Command{To: Name, Verb: verbHugeSegments}); err != nil && ctx.Err() != nil {
		return ctx.Err()
	}
	answer, err := s.env.Peer.Command(ctx, record.Command{To: Name, Verb: verbHuge, Body: encodeHuge(free)})
	if err != nil {
		return ctx.Err()
	}
	if len(answer.Body) > 0 {
		return fmt.Errorf("memory: too few huge pages: %s", answer.Body[:min(len(answer.Body), maxLacking)])
	}
	return nil
}

// maxLacking bounds what a source may make of an error.
const maxLacking = 1024

// encodeHuge writes sizes in ascending order, each with its number of pages,
// little-endian 64-bit numbers.
func encodeHuge(free map[uint64]uint64) []byte {
	var b []byte
	for _, size := range slices.SortedFunc(maps.Keys(free), cmp.Compare[uint64]) {
		b = binary.LittleEndian.AppendUint64(b, size)
		b = binary.LittleEndian.AppendUint64(b, free[size])
	}
	return b
}

// decodeHuge is the way back, of the peer's bytes.
func decodeHuge(b []byte) (map[uint64]uint64, error) {
	if len(b)%16 != 0 || len(b) > 16*maxHugeSizes {
		return nil, fmt.Errorf("memory: a list of huge pages has %d bytes", len(b))
	}
	free := map[uint64]uint64{}
	for ; len(b) > 0; b = b[16:] {
		size := binary.LittleEndian.Uint64(b)
		if !target.ValidHugeSize(size) {
			return nil, fmt.Errorf("memory: huge pages of %d bytes", size)
		}
		free[size] = binary.LittleEndian.Uint64(b[8:])
	}
	return free, nil
}
