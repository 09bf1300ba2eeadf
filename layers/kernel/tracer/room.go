// SPDX-License-Identifier: Apache-2.0

//go:build linux && amd64

package tracer

import (
	"math/rand/v2"
	"slices"
)

const (
	redZone = 128 // bytes below rsp that belong to a leaf function (psABI)
	// deepMargin is kept between a frame and the live part of a stack whose
	// stack pointer we do not see (a Go thread that runs on another stack).
	deepMargin = 64 << 10
	lowestHole = 1 << 32        // far from the program and its brk
	userEnd    = 0x7ffffffff000 // TASK_SIZE with four-level page tables
	holeMargin = 1 << 20        // so that no mapping merges with ours
)

// deadStack returns the 64-aligned address of need bytes of memory that no
// program may rely on: the far end of a stack, below everything live. sps
// are the stack pointers of all threads. The main stack is preferred; a
// thread's stack counts only if it is one for certain: a stack pointer
// inside and a guard mapping right below.
func deadStack(maps []mapping, sps []uint64, need int) (uint64, bool) {
	for i, m := range maps {
		if m.Name == "[stack]" {
			if at, ok := stackBottom(maps, i, sps, uint64(need), false); ok {
				return at, true
			}
		}
	}
	for i, m := range maps {
		if m.Name == "" && i > 0 && maps[i-1].End == m.Start && maps[i-1].none() {
			if at, ok := stackBottom(maps, i, sps, uint64(need), true); ok {
				return at, true
			}
		}
	}
	return 0, false
}

func stackBottom(maps []mapping, i int, sps []uint64, need uint64, mustHold bool) (uint64, bool) {
	m := maps[i]
	if !m.Read || !m.Write || m.Shared || m.Inode != 0 {
		return 0, false
	}
	limit, inside := m.End, false
	for _, sp := range sps {
		if sp > m.Start && sp <= m.End {
			limit, inside = min(limit, sp-redZone), true
		}
	}
	margin := uint64(0)
	if !inside || mustHold {
		margin = deepMargin
	}
	if mustHold && !inside || limit < m.Start || limit-m.Start < need+margin+frameAlign {
		return 0, false
	}
	// Leave some room below, for a handler that runs on this stack in the
	// moment between SETREGS and SETSIGMASK, if the tracer dies there.
	room := limit - m.Start - need - margin - frameAlign
	return (m.Start + min(room, 2*pageSize) + frameAlign - 1) &^ (frameAlign - 1), true
}

// Scratch areas start at addresses with this mark, so that one which a
// tracer mapped but could not fill before it died is recognised.
const (
	holeMark = 0x6d69000
	holeStep = 1 << 28
)

// pickHole returns the start of size free bytes, marked by holeMark, not
// touching used or avoid, with a margin around so that neighbours do not
// merge.
func pickHole(used, avoid []Range, size uint64) (uint64, bool) {
	return pickHoleFrom(lowestHole, used, avoid, size)
}

// frameHole is where a frame looks for its area first: at a step chosen at random
// in a part of the address space that programs do not use by themselves. The
// first calls may come before it is known what the image has mapped, and one of
// those mappings may be the area of a tracer that was killed, which lies where the
// lowest hole was.
func frameHole() uint64 {
	const first, steps = 1 << 36, 1 << 17
	return first + rand.Uint64N(steps)*holeStep
}

func pickHoleFrom(at uint64, used, avoid []Range, size uint64) (uint64, bool) {
	all := slices.Concat(used, avoid)
	slices.SortFunc(all, func(a, b Range) int {
		if a.Start < b.Start {
			return -1
		}
		return 1
	})
	for _, r := range all {
		if r.End <= r.Start || r.End <= at {
			continue
		}
		if start := markedAbove(at); r.Start >= start && r.Start-start >= size+holeMargin {
			break
		}
		at = max(at, (r.End+pageSize-1)&^(pageSize-1))
	}
	start := markedAbove(at)
	if start > userEnd || userEnd-start < size+holeMargin {
		return 0, false
	}
	return start, true
}

// markedAbove is the first marked address a margin above at.
func markedAbove(at uint64) uint64 {
	at += holeMargin - holeMark + holeStep - 1
	return at&^(holeStep-1) + holeMark
}
