// SPDX-License-Identifier: Apache-2.0

//go:build linux

package netns

import (
	"encoding/binary"
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// attribute is struct nlattr of netlink(7): a type, with its flags, and a value.
type attribute struct {
	kind  uint16
	value []byte
}

// typeMask takes NLA_F_NESTED and NLA_F_NET_BYTEORDER off a type.
const typeMask = 0x3fff

func (a attribute) plain() uint16 { return a.kind & typeMask }

var errShape = errors.New("netlink: an attribute's length does not fit")

// parse splits a run of attributes. Values are parts of b.
func parse(b []byte) (out []attribute, err error) {
	for len(b) > 0 {
		if len(b) < unix.SizeofNlAttr {
			return nil, errShape
		}
		size := int(binary.NativeEndian.Uint16(b))
		if size < unix.SizeofNlAttr || size > len(b) {
			return nil, errShape
		}
		out = append(out, attribute{binary.NativeEndian.Uint16(b[2:]), b[unix.SizeofNlAttr:size]})
		b = b[min(len(b), (size+3)&^3):]
	}
	return out, nil
}

// put appends an attribute, filled up to four bytes.
func put(b []byte, kind uint16, value []byte) []byte {
	b = binary.NativeEndian.AppendUint16(b, uint16(unix.SizeofNlAttr+len(value)))
	b = binary.NativeEndian.AppendUint16(b, kind)
	b = append(b, value...)
	for len(b)%4 != 0 {
		b = append(b, 0)
	}
	return b
}

func putString(b []byte, kind uint16, s string) []byte { return put(b, kind, append([]byte(s), 0)) }

func putNumber(b []byte, kind uint16, n uint32) []byte {
	return put(b, kind, binary.NativeEndian.AppendUint32(nil, n))
}

// find is the first attribute of a type, nil if there is none.
func find(list []attribute, kind uint16) []byte {
	for _, a := range list {
		if a.plain() == kind {
			return a.value
		}
	}
	return nil
}

// number is a u32 attribute, 0 if it is missing.
func number(list []attribute, kind uint16) uint32 {
	if v := find(list, kind); len(v) == 4 {
		return binary.NativeEndian.Uint32(v)
	}
	return 0
}

func text(list []attribute, kind uint16) string {
	return unix.ByteSliceToString(find(list, kind))
}

// split takes the fixed header off a message.
func split(body []byte, header int) (fixed []byte, list []attribute, err error) {
	if len(body) < header {
		return nil, nil, fmt.Errorf("netlink: a message of %d bytes, its header has %d", len(body), header)
	}
	list, err = parse(body[header:])
	return body[:header], list, err
}
