// SPDX-License-Identifier: Apache-2.0

package memory

import (
	"errors"
	"fmt"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/io-mig/mig/layers/kernel/procfs"
)

// A process that reads past the page cache (O_DIRECT, open(2)) has a device write to
// its memory. The kernel marks the page as written when it pins it, before the device
// begins, and not when the device has done (mm/gup.c; fs/iomap/direct-io.c): a page
// that is looked at, protected and sent in between changes afterwards, and no mark
// tells. InnoDB reads so, for example.
//
// A read of the process itself is over when the process is stopped, since nobody can
// interrupt it. So its pages are protected for the first time while it stands still,
// and whatever was written after that and looked at while it ran is sent once more
// when it is stopped for good. A request of io_submit(2) is nobody's who could be
// stopped: memory of a process that has a ring is not copied ahead at all.

// bypass is how a process reads past the page cache.
type bypass uint8

const (
	bypassNever bypass = iota
	// bypassDirect: with O_DIRECT, as far as its descriptors tell.
	bypassDirect
	// bypassQueued: it has a ring for asynchronous requests.
	bypassQueued
)

// lookForBypass looks at the mappings and descriptors of the running process. A
// descriptor that was opened and closed between two looks is not seen.
func (r *round) lookForBypass() (bypass, error) {
	maps, err := procfs.Consistent(r.p.Proc.Maps)
	if err != nil {
		return bypassNever, err
	}
	if slices.ContainsFunc(maps, func(m procfs.Mapping) bool { return m.Kind == procfs.MapAIO }) {
		return bypassQueued, nil
	}
	tables, err := r.p.Tables()
	if err != nil {
		return bypassNever, err
	}
	for i, t := range tables {
		found, err := opensDirect(t)
		if i > 0 && procfs.IsGone(err) {
			continue // the threads have ended that had this table
		}
		if err != nil || found != bypassNever {
			return found, err
		}
	}
	return bypassNever, nil
}

// opensDirect looks at one descriptor table.
func opensDirect(t procfs.Task) (bypass, error) {
	fds, err := t.FDs()
	if err != nil {
		return bypassNever, err
	}
	for _, fd := range fds {
		info, err := t.FDInfo(fd)
		var odd *procfs.ParseError
		switch {
		case procfs.IsGone(err), errors.As(err, &odd): // closed; what is odd is no file
		case err != nil:
			return bypassNever, fmt.Errorf("descriptor %d: %w", fd, err)
		case info.Flags&unix.O_DIRECT != 0:
			return bypassDirect, nil
		}
	}
	return bypassNever, nil
}

// heed looks for it, and forgets what was copied without regard to it. It reports
// whether memory can be copied ahead.
func (r *round) heed() (bool, error) {
	found, err := r.lookForBypass()
	if err != nil {
		return false, err
	}
	if found > r.a.bypass { // never less: a request may still be under way
		r.a.bypass, r.a.steady = found, false
		r.a.have, r.a.unsettled = nil, nil
	}
	if r.a.bypass == bypassQueued {
		r.s.note(fmt.Sprintf("pid %d is not copied ahead: it has a ring for asynchronous reads (io_setup), and nobody tells when such a read writes to its memory", r.p.Pid))
	}
	return r.a.bypass != bypassQueued, nil
}

// steady protects all pages of the process, which stands still.
func (r *round) steady(maps []procfs.Mapping) error {
	if r.a.bypass != bypassDirect || r.a.steady {
		return nil
	}
	pm, err := openPagemap(r.p.Pid)
	if err != nil {
		return err
	}
	defer pm.Close()
	if _, err := r.protect(pm, trackables(maps)); err != nil {
		return err
	}
	r.a.steady = true
	return nil
}

// unsettle notes pages that were looked at while a device may have written to them.
func (a *ahead) unsettle(seen *pages) {
	if a.bypass == bypassDirect {
		a.unsettled = a.unsettled.union(seen.dirty)
	}
}
