// SPDX-License-Identifier: Apache-2.0

package procfs

import (
	"bytes"
	"encoding/binary"
	"errors"
)

// single parses a file that holds one value, with or without a newline
// (loginuid has none).
func single[T any](file string, data []byte, parse func(*cursor) T) (T, error) {
	line := bytes.TrimSuffix(data, []byte{'\n'})
	c := cursor{rest: line}
	v := parse(&c)
	if err := c.end(); err != nil {
		var zero T
		return zero, parseError(file, 1, line, err)
	}
	return v, nil
}

// ParseDecimal reads a file that is one unsigned decimal number
// (timerslack_ns, loginuid, sys/kernel/cap_last_cap).
func ParseDecimal(data []byte) (uint64, error) {
	return single("value", data, func(c *cursor) uint64 { return c.dec("number") })
}

// ParseHex32 reads a file that is one hexadecimal number (personality,
// coredump_filter).
func ParseHex32(data []byte) (uint32, error) {
	return single("value", data, func(c *cursor) uint32 { return c.hex32("number") })
}

// ParseOOMScoreAdj reads oom_score_adj and checks its range.
func ParseOOMScoreAdj(data []byte) (int, error) {
	return single("oom_score_adj", data, func(c *cursor) int {
		v := c.int("number")
		if v < -1000 || v > 1000 {
			c.fail("number", errRange)
		}
		return v
	})
}

// ParseComm reads comm: raw bytes, which may include newlines, then one.
func ParseComm(data []byte) (string, error) {
	name, ok := bytes.CutSuffix(data, []byte{'\n'})
	if !ok {
		return "", parseError("comm", 1, data, errTruncated)
	}
	return string(name), nil
}

// ParseCmdline splits at the zero bytes. An application that overwrote its
// arguments (setproctitle) may have left no zero at the end, or several.
func ParseCmdline(data []byte) ([]string, error) {
	if len(data) == 0 {
		return nil, nil
	}
	data = bytes.TrimSuffix(data, []byte{0})
	out := make([]string, 0, bytes.Count(data, []byte{0})+1)
	for {
		arg, rest, more := bytes.Cut(data, []byte{0})
		out = append(out, string(arg))
		if !more {
			return out, nil
		}
		data = rest
	}
}

// ParseChildren reads task/TID/children: pids with a blank behind each.
func ParseChildren(data []byte) ([]int, error) {
	return parsePids("children", data)
}

func parsePids(file string, data []byte) ([]int, error) {
	c := cursor{rest: data}
	var out []int
	for c.skip(); c.err == nil && len(c.rest) > 0; c.skip() {
		out = append(out, c.int("pid"))
	}
	if c.err != nil {
		return nil, parseError(file, 1, data, c.err)
	}
	return out, nil
}

// AuxEntry is one pair of the auxiliary vector: key AT_* of getauxval(3).
type AuxEntry struct {
	Key, Value uint64
}

// ParseAuxv reads the auxiliary vector of a 64-bit little-endian task, up to
// and without AT_NULL.
func ParseAuxv(data []byte) ([]AuxEntry, error) {
	const size = 16
	if len(data)%size != 0 {
		return nil, parseError("auxv", 0, data, errors.New("length is not a multiple of 16"))
	}
	out := make([]AuxEntry, 0, len(data)/size)
	for ; len(data) > 0; data = data[size:] {
		e := AuxEntry{binary.LittleEndian.Uint64(data), binary.LittleEndian.Uint64(data[8:])}
		if e.Key == 0 {
			break
		}
		out = append(out, e)
	}
	return out, nil
}
