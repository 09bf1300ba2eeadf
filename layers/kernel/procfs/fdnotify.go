// SPDX-License-Identifier: Apache-2.0

package procfs

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
)

// parseInotifyWatch reads "inotify wd:1 ino:3c4a3 sdev:fe00000 mask:fff
// ignored_mask:0 fhandle-bytes:8 fhandle-type:1 f_handle:a3c4030000000000",
// all in hexadecimal.
func parseInotifyWatch(line []byte) (InotifyWatch, error) {
	var w InotifyWatch
	m, err := parseMark(line, "inotify ", &w.WD)
	w.Ino, w.Dev, w.Mask, w.IgnoredMask, w.Handle = m.Ino, m.Dev, m.Mask, m.IgnoredMask, m.Handle
	return w, err
}

// fanotify reads the group's line and those of its marks.
func (d *FDInfo) fanotify(line []byte) error {
	if d.Fanotify == nil {
		c := cursor{rest: line}
		c.literal("fanotify flags:")
		flags := c.hex32("flags")
		c.skip()
		c.literal("event-flags:")
		d.Fanotify = &FanotifyInfo{Flags: flags, EventFlags: c.hex32("event-flags")}
		return c.end()
	}
	m, err := parseMark(line, "fanotify ", nil)
	d.Fanotify.Marks = append(d.Fanotify.Marks, m)
	return err
}

// parseMark reads the key:value pairs that both notifiers share; wd is nil
// where a watch descriptor would be an error.
func parseMark(line []byte, prefix string, wd *int) (FanotifyMark, error) {
	var m FanotifyMark
	c := cursor{rest: line}
	c.literal(prefix)
	size := -1
	for c.skip(); c.err == nil && len(c.rest) > 0; c.skip() {
		key, value, _ := bytes.Cut(c.field("pair"), []byte{':'})
		switch string(key) {
		case "wd":
			if wd == nil {
				return m, errors.New("unknown key \"wd\"")
			}
			*wd = int(c.number(value, 16, 31, "wd"))
		case "ino":
			m.Ino = c.number(value, 16, 64, "ino")
		case "sdev":
			m.Dev = KernelDev(uint32(c.number(value, 16, 32, "sdev")))
		case "mnt_id":
			m.MntID = int(c.number(value, 16, 31, "mnt_id"))
		case "mnt_ns":
			m.MntNS = c.number(value, 10, 32, "mnt_ns")
		case "mflags":
			m.MFlags = uint32(c.number(value, 16, 32, "mflags"))
		case "mask":
			m.Mask = uint32(c.number(value, 16, 32, "mask"))
		case "ignored_mask":
			m.IgnoredMask = uint32(c.number(value, 16, 32, "ignored_mask"))
		case "fhandle-bytes":
			size = int(c.number(value, 16, 16, "fhandle-bytes"))
			m.Handle = &FileHandle{}
		case "fhandle-type":
			m.handle().Type = int(c.number(value, 16, 31, "fhandle-type"))
		case "f_handle":
			m.handle().Handle = c.bytes(value)
		default:
			return m, fmt.Errorf("unknown key %q", key)
		}
	}
	if c.err == nil && m.Handle != nil && len(m.Handle.Handle) != size {
		return m, fmt.Errorf("file handle has %d bytes, fhandle-bytes says %d", len(m.Handle.Handle), size)
	}
	return m, c.err
}

func (m *FanotifyMark) handle() *FileHandle {
	if m.Handle == nil {
		m.Handle = &FileHandle{}
	}
	return m.Handle
}

func (c *cursor) bytes(f []byte) []byte {
	out := make([]byte, hex.DecodedLen(len(f)))
	if _, err := hex.Decode(out, f); err != nil && c.err == nil {
		c.err = fmt.Errorf("f_handle: %w", err)
	}
	return out
}
