// SPDX-License-Identifier: Apache-2.0

package procfs

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
)

// Mount is one line of /proc/PID/mountinfo (fs/proc_namespace.c,
// show_mountinfo), with the octal escapes undone.
type Mount struct {
	ID, Parent int
	Dev        Dev
	Root       string // what of the file system is mounted
	// RootDeleted: that directory has been removed ("//deleted").
	RootDeleted bool
	Target      string // mount point, relative to the task's root directory
	Options     []string
	// Peer groups: 0 where the mount is not in one.
	Shared, Master, PropagateFrom int
	Unbindable                    bool
	// ExtraTags are optional fields that this package does not know.
	ExtraTags    []string
	FSType       string // may have a subtype: "fuse.sshfs"
	Source       string // "none" or "" for some
	SuperOptions []string
}

// ParseMountinfo reads /proc/PID/mountinfo.
func ParseMountinfo(data []byte) ([]Mount, error) {
	var p mountParser
	if err := eachLine("mountinfo", data, p.line); err != nil {
		return nil, err
	}
	return p.out, nil
}

type mountParser struct{ out []Mount }

func (p *mountParser) line(line []byte) error {
	c := cursor{rest: line}
	m := Mount{ID: c.int("mount id"), Parent: c.int("parent id"), Dev: c.decDev()}
	root := unescapeOctal(c.field("root"))
	m.Root, m.RootDeleted = strings.CutSuffix(root, "//deleted")
	m.Target = unescapeOctal(c.field("mount point"))
	m.Options = splitOptions(c.field("options"))
	for c.err == nil {
		tag := c.field("separator")
		if len(tag) == 1 && tag[0] == '-' {
			break
		}
		m.setTag(tag, &c)
	}
	c.literal(" ")
	m.FSType = unescapeOctal(c.until(' ', "type"))
	// The source may be empty, which shows as two blanks.
	m.Source = unescapeOctal(c.until(' ', "source"))
	if c.err != nil {
		return c.err
	}
	if m.FSType == "" {
		return errors.New("no file system type")
	}
	m.SuperOptions = splitOptions(c.rest)
	p.out = append(p.out, m)
	return nil
}

// setTag reads an optional field: "shared:2".
func (m *Mount) setTag(tag []byte, c *cursor) {
	if c.err != nil {
		return
	}
	name, value, _ := bytes.Cut(tag, []byte{':'})
	switch string(name) {
	case "shared":
		m.Shared = int(c.number(value, 10, 31, "peer group"))
	case "master":
		m.Master = int(c.number(value, 10, 31, "peer group"))
	case "propagate_from":
		m.PropagateFrom = int(c.number(value, 10, 31, "peer group"))
	case "unbindable":
		m.Unbindable = true
	default:
		m.ExtraTags = append(m.ExtraTags, string(tag))
	}
}

// decDev reads "8:1".
func (c *cursor) decDev() Dev {
	f := c.field("device")
	d := cursor{rest: f, err: c.err}
	major := d.number(d.until(':', "device"), 10, 32, "device")
	minor := d.number(d.rest, 10, 32, "device")
	if d.err != nil && c.err == nil {
		c.err = fmt.Errorf("device %q: %w", f, d.err)
	}
	return Dev{uint32(major), uint32(minor)}
}

// splitOptions splits before unescaping: a comma inside a value is a literal
// comma to the kernel too, so nothing better is possible.
func splitOptions(b []byte) []string {
	if len(b) == 0 {
		return nil
	}
	out := strings.Split(string(b), ",")
	for i := range out {
		out[i] = unescapeOctal([]byte(out[i]))
	}
	return out
}

// unescapeOctal undoes seq_escape and mangle_path: \ooo is one byte. The
// backslash itself is escaped in mountinfo, so this is exact.
func unescapeOctal(b []byte) string {
	if bytes.IndexByte(b, '\\') < 0 {
		return string(b)
	}
	out := make([]byte, 0, len(b))
	for i := 0; i < len(b); i++ {
		if b[i] == '\\' && i+3 < len(b) {
			if n, err := parseUint(b[i+1:i+4], 8, 8); err == nil {
				out = append(out, byte(n))
				i += 3
				continue
			}
		}
		out = append(out, b[i])
	}
	return string(out)
}
