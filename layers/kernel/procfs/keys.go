// SPDX-License-Identifier: Apache-2.0

package procfs

// Key is a key or keyring (keyrings(7)).
type Key struct {
	Serial   uint32
	UID      uint32
	Type     string // of at most nine bytes: longer ones are cut off
	Describe string // its description, behind it what its type adds
}

// Keys reads keys: those that the calling thread may view, by its file system
// ids. It is an fs.ErrNotExist where the kernel has none.
func (f FS) Keys() ([]Key, error) {
	var p keyParser
	if err := f.stream("keys", p.line); err != nil {
		return nil, err
	}
	return p.out, nil
}

// ParseKeys reads /proc/keys. Descriptions are whatever a program has given, also
// with line breaks: a line that is none of a key is part of one, and left out.
func ParseKeys(data []byte) ([]Key, error) {
	var p keyParser
	err := eachLine("keys", data, p.line)
	return p.out, err
}

type keyParser struct{ out []Key }

// line reads "3f6724a8 I--Q---     1 perm 3f130000     0     0 keyring   x: 1".
func (p *keyParser) line(line []byte) error {
	c := cursor{rest: line}
	k := Key{Serial: c.hex32("serial")}
	for _, what := range []string{"flags", "usage", "timeout", "permissions"} {
		c.field(what)
	}
	k.UID = c.dec32("uid")
	c.dec32("gid")
	k.Type = string(c.field("type"))
	c.skip()
	k.Describe = string(c.rest)
	if c.err == nil {
		p.out = append(p.out, k)
	}
	return nil
}
