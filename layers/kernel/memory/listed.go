// SPDX-License-Identifier: Apache-2.0

package memory

import "github.com/io-mig/mig/spec/state"

// What stays behind at the switch has to be listed when the process is stopped, and to
// look at all pages for that takes 3 ms for each gigabyte. Where all pages of a page
// table were there while the process ran, nobody looks again: new ones cannot have
// come, and one that has gone since is listed all the same. It reads as zeroes on both
// sides, so the copy may as well wait for it (see left.absent).

// hugeSize is the memory that one page table maps.
const hugeSize = 2 << 20

// list notes what the running process has of memory that can be left behind.
func (r *round) list() error {
	r.a.listed = nil
	mappings, err := early(r.a.smaps)
	if err != nil {
		return err
	}
	pm, err := openPagemap(r.p.Pid)
	if err != nil {
		return err
	}
	defer pm.Close()
	for _, x := range mayStay(mappings) {
		err := pm.scan(x.start, x.end, content, func(start, end uint64) {
			r.a.listed = r.a.listed.put(run{(start + hugeSize - 1) &^ (hugeSize - 1), end &^ (hugeSize - 1)})
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// mayStay are the pages that can come when the copy runs, if they are there.
func mayStay(mappings []*state.Mapping) (s pageSet) {
	for _, m := range mappings {
		if leavable(m) {
			s = s.put(run{m.Start, end(m)})
		}
	}
	return s
}

// suppose adds pages that were listed and not looked at since.
func (p *pages) suppose(s pageSet) {
	p.supposed = s
	p.present, p.dirty, p.untracked = p.present.union(s), p.dirty.union(s), p.untracked.union(s)
}
