// SPDX-License-Identifier: Apache-2.0

package procfs

import (
	"bytes"
	"errors"
)

// table parses texts whose first line is a heading (net/*, sysvipc/*).
type table[T any] struct {
	heading string // what the heading begins with, blanks aside
	row     func(*cursor) T
	out     []T
	started bool
}

func (t *table[T]) line(line []byte) error {
	if !t.started {
		t.started = true
		if !bytes.HasPrefix(bytes.TrimLeft(line, " "), []byte(t.heading)) {
			return errors.New("unexpected heading")
		}
		return nil
	}
	c := cursor{rest: line}
	row := t.row(&c)
	if c.err != nil {
		return c.err
	}
	t.out = append(t.out, row)
	return nil
}

// parse runs the table over a whole text.
func (t *table[T]) parse(file string, data []byte) ([]T, error) {
	if err := eachLine(file, data, t.line); err != nil {
		return nil, err
	}
	return t.out, nil
}

// stream runs the table over a file.
func (t *table[T]) stream(f FS, name string) ([]T, error) {
	if err := f.stream(name, t.line); err != nil {
		return nil, err
	}
	return t.out, nil
}
