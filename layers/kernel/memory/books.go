// SPDX-License-Identifier: Apache-2.0

package memory

import "slices"

// books say where in an address space the source's pages belong, and which of
// them have not come. The events of a userfaultfd keep them: see lazySpace.
//
// The kernel tells of a change when it is made, the change's maker waits until it
// was told, and several threads make changes at once: the events of two of them
// come in any order. What has to come out right all the same is that one thread
// is given addresses that another one has just left (mmap(2) and mremap(2) choose
// them): a window that leaves a place may be told of after the next one has come
// there.
type books struct {
	// missing are the pages that have not come, at the source's addresses.
	missing pageSet
	// windows say where the source's addresses are. Each comes behind those that
	// were at its place before it.
	windows []window
	// moves are those whose end was not told.
	moves []*remap
	// doubt: since the books were last known to be exact something has moved.
	doubt bool
}

// window: the addresses at are those of the source from origin on.
type window struct {
	at     run
	origin uint64
	// by is the move that has brought it here and whose end was not told.
	by *remap
}

// remap is an mremap(2). Three events tell of it, of which its maker waits for each:
// the unmapping of what was at the new place, the move, and the unmapping of the
// old place (mm/mremap.c, fs/userfaultfd.c). The last one does not come with
// MREMAP_DONTUNMAP. When it comes the old place may be somebody else's.
type remap struct{ from run }

// part is the window of some of its addresses.
func (w window) part(r run) window {
	return window{r, w.origin + r.start - w.at.start, w.by}
}

// source are the addresses that it shows.
func (w window) source() run { return run{w.origin, w.origin + w.at.bytes()} }

// origins are the source's addresses of what is at x.
func (b *books) origins(x run) (s pageSet) {
	rest := pageSet{x}
	for _, w := range slices.Backward(b.windows) {
		for _, r := range rest.intersect(pageSet{w.at}) {
			s = s.union(pageSet{w.part(r).source()})
			rest = rest.subtract(pageSet{r})
		}
	}
	return s
}

// take takes windows away from x, of several at one place the one that came
// first, and those only which may be taken.
func (b *books) take(x run, may func(window) bool) (taken []window) {
	rest := pageSet{x}
	var left []window
	for _, w := range b.windows {
		if !may(w) {
			left = append(left, w)
			continue
		}
		whole := pageSet{w.at}
		hit := whole.intersect(rest)
		for _, r := range hit {
			taken = append(taken, w.part(r))
		}
		for _, r := range whole.subtract(hit) {
			left = append(left, w.part(r))
		}
		rest = rest.subtract(hit)
	}
	b.windows = left
	return taken
}

// drop notes that nobody can see the pages of these windows any more.
func (b *books) drop(windows []window) {
	for _, w := range windows {
		b.missing = b.missing.subtract(pageSet{w.source()})
	}
}

// emptied notes that the program has thrown pages away: they are zero from now
// on.
func (b *books) emptied(x run) { b.missing = b.missing.subtract(b.origins(x)) }

// unmapped notes that nothing is at x any more, but for what has come there
// since: who has brought that has not been told of the end of its move yet, so
// nobody else knows of it, and what was unmapped is what was there before.
func (b *books) unmapped(x run) {
	for i, m := range b.moves {
		if m.from == x {
			b.ended(m)
			b.moves = slices.Delete(b.moves, i, i+1)
			return
		}
	}
	b.drop(b.take(x, func(w window) bool { return w.by == nil }))
}

func (b *books) ended(m *remap) {
	for i := range b.windows {
		if b.windows[i].by == m {
			b.windows[i].by = nil
		}
	}
}

// moved notes an mremap(2).
func (b *books) moved(from, to, length uint64) {
	m := &remap{run{from, from + length}}
	b.doubt = true
	b.moves = append(b.moves, m)
	for _, w := range b.take(m.from, func(window) bool { return true }) {
		b.windows = append(b.windows, window{run{w.at.start - from + to, w.at.end - from + to}, w.origin, m})
	}
}

// settle notes that all was told that has happened: what came last to a place is
// what is there.
func (b *books) settle() {
	var seen pageSet
	var left, gone []window
	for _, w := range slices.Backward(b.windows) {
		w.by = nil
		whole := pageSet{w.at}
		for _, r := range whole.intersect(seen) {
			gone = append(gone, w.part(r))
		}
		for _, r := range whole.subtract(seen) {
			left = append(left, w.part(r))
		}
		seen = seen.union(whole)
	}
	slices.Reverse(left)
	b.windows, b.moves, b.doubt = left, nil, false
	b.drop(gone)
}

// lacks is the first part of r, which are addresses of the source, that is
// missing and has a place, and where that begins. What has no place is not missing
// any more. The books have to be exact.
func (b *books) lacks(r run) (part run, at uint64, ok bool) {
	for _, m := range (pageSet{r}).intersect(b.missing) {
		for _, w := range b.windows {
			o := w.source()
			start, stop := max(m.start, o.start), min(m.end, o.end)
			if start < stop {
				return run{start, stop}, w.at.start + start - w.origin, true
			}
		}
		b.missing = b.missing.subtract(pageSet{m})
	}
	return run{}, 0, false
}

// fork are the books of a child.
func (b *books) fork() books {
	c := books{missing: slices.Clone(b.missing), windows: slices.Clone(b.windows), doubt: b.doubt}
	for i := range c.windows {
		c.windows[i].by = nil // the child is told of no ends
	}
	return c
}
