// SPDX-License-Identifier: Apache-2.0

package procfs

import (
	"bytes"
	"errors"
	"fmt"
	"math/bits"
)

var (
	errEmpty    = errors.New("is missing")
	errNotDigit = errors.New("is not a number")
	errRange    = errors.New("is out of range")
)

// cursor walks one line from left to right. The first failure sticks: callers
// read all fields and look at err once.
type cursor struct {
	rest []byte
	err  error
}

func (c *cursor) fail(what string, err error) {
	if c.err == nil {
		c.err = fmt.Errorf("%s %w", what, err)
	}
}

// skip drops leading blanks.
func (c *cursor) skip() {
	i := 0
	for i < len(c.rest) && (c.rest[i] == ' ' || c.rest[i] == '\t') {
		i++
	}
	c.rest = c.rest[i:]
}

// field returns the next blank-separated field.
func (c *cursor) field(what string) []byte {
	c.skip()
	i := 0
	for i < len(c.rest) && c.rest[i] != ' ' && c.rest[i] != '\t' {
		i++
	}
	f := c.rest[:i]
	c.rest = c.rest[i:]
	if len(f) == 0 {
		c.fail(what, errEmpty)
	}
	return f
}

// until returns what precedes sep and steps over sep.
func (c *cursor) until(sep byte, what string) []byte {
	i := bytes.IndexByte(c.rest, sep)
	if i < 0 {
		if c.err == nil {
			c.err = fmt.Errorf("%s is not followed by %q", what, sep)
		}
		return nil
	}
	f := c.rest[:i]
	c.rest = c.rest[i+1:]
	return f
}

// literal steps over s, which must come next.
func (c *cursor) literal(s string) {
	if len(c.rest) < len(s) || string(c.rest[:len(s)]) != s {
		if c.err == nil {
			c.err = fmt.Errorf("expected %q", s)
		}
		return
	}
	c.rest = c.rest[len(s):]
}

// number converts f; width is the result's size in bits.
func (c *cursor) number(f []byte, base uint64, width uint, what string) uint64 {
	if c.err != nil {
		return 0
	}
	n, err := parseUint(f, base, width)
	if err != nil {
		c.fail(what, err)
	}
	return n
}

func (c *cursor) dec(what string) uint64   { return c.number(c.field(what), 10, 64, what) }
func (c *cursor) dec32(what string) uint32 { return uint32(c.number(c.field(what), 10, 32, what)) }
func (c *cursor) hex(what string) uint64   { return c.number(c.field(what), 16, 64, what) }
func (c *cursor) hex32(what string) uint32 { return uint32(c.number(c.field(what), 16, 32, what)) }

// int64 and int read a signed decimal field.
func (c *cursor) int64(what string) int64 { return c.signed(c.field(what), 64, what) }
func (c *cursor) int(what string) int     { return int(c.signed(c.field(what), 32, what)) }

func (c *cursor) signed(f []byte, width uint, what string) int64 {
	if c.err != nil {
		return 0
	}
	n, err := parseInt(f, width)
	if err != nil {
		c.fail(what, err)
	}
	return n
}

// end demands that nothing but blanks is left.
func (c *cursor) end() error {
	c.skip()
	if c.err == nil && len(c.rest) > 0 {
		c.err = fmt.Errorf("unexpected %q after the last field", c.rest)
	}
	return c.err
}

// parseUint is strconv.ParseUint without the string, for bases up to 16.
func parseUint(b []byte, base uint64, width uint) (uint64, error) {
	if len(b) == 0 {
		return 0, errEmpty
	}
	limit := ^uint64(0) >> (64 - width)
	var n uint64
	for _, ch := range b {
		var d uint64
		switch {
		case ch >= '0' && ch <= '9':
			d = uint64(ch - '0')
		case ch >= 'a' && ch <= 'f':
			d = uint64(ch-'a') + 10
		case ch >= 'A' && ch <= 'F':
			d = uint64(ch-'A') + 10
		default:
			return 0, errNotDigit
		}
		if d >= base {
			return 0, errNotDigit
		}
		over, product := bits.Mul64(n, base)
		next, carry := bits.Add64(product, d, 0)
		if over|carry != 0 || next > limit {
			return 0, errRange
		}
		n = next
	}
	return n, nil
}

// parseInt reads a decimal number with an optional minus sign.
func parseInt(b []byte, width uint) (int64, error) {
	negative := len(b) > 0 && b[0] == '-'
	if negative {
		b = b[1:]
	}
	n, err := parseUint(b, 10, 64)
	if err != nil {
		return 0, err
	}
	limit := uint64(1) << (width - 1)
	switch {
	case negative && n <= limit:
		return int64(-n), nil
	case !negative && n < limit:
		return int64(n), nil
	}
	return 0, errRange
}
