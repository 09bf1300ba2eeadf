// SPDX-License-Identifier: Apache-2.0

package procfs

import (
	"bytes"
	"fmt"
)

// Prot is a mapping's protection, with the values of mmap(2)'s PROT_*.
type Prot uint8

// The protection bits.
const (
	ProtRead  Prot = 1
	ProtWrite Prot = 2
	ProtExec  Prot = 4
)

// Mapping is one line of /proc/PID/maps (fs/proc/task_mmu.c, show_map_vma).
type Mapping struct {
	Start, End uint64 // addresses; End is exclusive
	Offset     uint64 // into the file, in bytes
	Inode      uint64 // 0: no file behind the mapping
	// Path is what the kernel prints, with \012 turned back into a newline
	// and without " (deleted)". The kernel does not escape the backslash, so
	// a file whose name contains the four characters \012 looks the same as
	// one with a newline: map_files has the truth.
	Path string
	Dev  Dev
	Prot Prot
	// Shared is MAP_SHARED.
	Shared bool
	// Deleted: the path ends with " (deleted)". A file may also really be
	// called so: compare device and inode with a stat of the path.
	Deleted bool
	Kind    MapKind
}

// Len is the mapping's size in bytes.
func (m *Mapping) Len() uint64 { return m.End - m.Start }

// ParseMaps reads /proc/PID/maps. The mappings are sorted and disjoint: text
// where they are not is an error.
func ParseMaps(data []byte) ([]Mapping, error) {
	p := mapsParser{out: make([]Mapping, 0, bytes.Count(data, []byte{'\n'}))}
	if err := eachLine("maps", data, p.line); err != nil {
		return nil, err
	}
	return p.out, nil
}

// mapsParser appends one mapping per line.
type mapsParser struct {
	out   []Mapping
	names pathCache
	last  uint64 // end of the mapping before
}

func (p *mapsParser) line(line []byte) error {
	m, err := p.names.mapping(line)
	if err != nil {
		return err
	}
	if err := follows(&m, &p.last); err != nil {
		return err
	}
	p.out = append(p.out, m)
	return nil
}

// follows checks that m begins at or behind last and moves last to its end.
func follows(m *Mapping, last *uint64) error {
	if m.Start < *last {
		return fmt.Errorf("mapping begins at %#x, before the end %#x of the one above", m.Start, *last)
	}
	*last = m.End
	return nil
}

// mapping parses a maps line or the heading of a smaps entry.
func (p *pathCache) mapping(line []byte) (Mapping, error) {
	c := cursor{rest: line}
	var m Mapping
	m.Start = c.number(c.until('-', "start"), 16, 64, "start")
	m.End = c.number(c.until(' ', "end"), 16, 64, "end")
	perms := c.until(' ', "permissions")
	m.Offset = c.number(c.until(' ', "offset"), 16, 64, "offset")
	m.Dev = c.hexDev(c.until(' ', "device"), "device")
	m.Inode = c.number(c.until(' ', "inode"), 10, 64, "inode")
	if c.err != nil {
		return Mapping{}, c.err
	}
	if m.Start >= m.End {
		return Mapping{}, fmt.Errorf("empty or reversed range %#x-%#x", m.Start, m.End)
	}
	if err := m.setPermissions(perms); err != nil {
		return Mapping{}, err
	}
	c.skip()
	p.setPath(&m, c.rest)
	return m, nil
}

// setPermissions reads "rwxp".
func (m *Mapping) setPermissions(s []byte) error {
	if len(s) != 4 {
		return fmt.Errorf("permissions %q are not four letters", s)
	}
	for i, letter := range []byte("rwx") {
		switch s[i] {
		case letter:
			m.Prot |= 1 << i
		case '-':
		default:
			return fmt.Errorf("permissions %q: unknown letter %q", s, s[i])
		}
	}
	m.Shared = s[3] == 's'
	if s[3] != 's' && s[3] != 'p' {
		return fmt.Errorf("permissions %q: unknown letter %q", s, s[3])
	}
	return nil
}

// String is the line as the kernel prints it, without the newline.
func (m *Mapping) String() string {
	b := make([]byte, 0, 128)
	b = fmt.Appendf(b, "%08x-%08x %s %08x %02x:%02x %d ",
		m.Start, m.End, m.permissions(), m.Offset, m.Dev.Major, m.Dev.Minor, m.Inode)
	if m.Path == "" {
		return string(b)
	}
	const column = 73 // seq_pad in show_map_vma: 25 + 6 pointers, minus one
	for len(b) < column {
		b = append(b, ' ')
	}
	b = append(b, bytes.ReplaceAll([]byte(m.Path), []byte("\n"), []byte(escapedNewline))...)
	if m.Deleted {
		b = append(b, deletedSuffix...)
	}
	return string(b)
}

func (m *Mapping) permissions() string {
	s := []byte("---p")
	for i, letter := range []byte("rwx") {
		if m.Prot&(1<<i) != 0 {
			s[i] = letter
		}
	}
	if m.Shared {
		s[3] = 's'
	}
	return string(s)
}
