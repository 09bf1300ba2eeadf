// SPDX-License-Identifier: Apache-2.0

//go:build linux

package netns

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// List dumps a category. Each message is cut down to its shape.
func (h *Handle) List(c Category) ([][]byte, error) {
	var out [][]byte
	for _, ask := range h.questions(c) {
		list, err := h.dump(shapes[c].get, ask)
		if errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.EAFNOSUPPORT) {
			continue // no IPv6, or no traffic control, in this kernel
		}
		if err != nil {
			return nil, fmt.Errorf("list each %s: %w", c, err)
		}
		for _, b := range list {
			if b, err = shapes[c].trim(b); err != nil {
				return nil, err
			}
			if b != nil {
				out = append(out, b)
			}
		}
	}
	return out, nil
}

// questions are the bodies of the dumps of a category.
func (h *Handle) questions(c Category) (all [][]byte) {
	body := func(family byte) []byte {
		b := make([]byte, shapes[c].header)
		b[0] = family
		return b
	}
	switch c {
	case Disciplines:
		return [][]byte{body(0)}
	case Classes: // of one interface at a time
		links, _ := h.Links()
		for _, l := range links {
			b := body(0)
			binary.NativeEndian.PutUint32(b[4:], uint32(l.Index))
			all = append(all, b)
		}
		return all
	case Neighbours:
		for _, f := range []byte{unix.AF_INET, unix.AF_INET6} {
			proxies := body(f)
			proxies[10] = unix.NTF_PROXY
			all = append(all, body(f), proxies)
		}
		return all
	}
	return [][]byte{body(unix.AF_INET), body(unix.AF_INET6)}
}

// Trim cuts a message from elsewhere down to its shape, which also checks it. nil:
// it is none that List returns.
func Trim(c Category, body []byte) ([]byte, error) { return shapes[c].trim(body) }

// EachIndex calls fn with each place of a trimmed message that holds the number
// of an interface, as a u32 of the machine's byte order.
func EachIndex(c Category, body []byte, fn func(place []byte) error) error {
	return shapes[c].eachIndex(body, fn)
}

// Sync makes the namespace have what the list says of a category. Where keep says
// so of a message that is there and not in the list, it stays; nil: all go.
// Neighbours are only added. The order of the list is that in which messages are
// made, but for those that need a later one.
func (h *Handle) Sync(c Category, want [][]byte, keep func(body []byte) bool) error {
	have, err := h.List(c)
	if err != nil {
		return err
	}
	s := &shapes[c]
	wanted, there := map[string]bool{}, map[string]bool{}
	for _, b := range want {
		wanted[s.key(b)] = true
	}
	for _, b := range have {
		k := s.key(b)
		if there[k] = true; wanted[k] || c == Neighbours || keep != nil && keep(b) {
			continue
		}
		err := h.do(s.del, 0, b)
		if err != nil && !gone(err) {
			return fmt.Errorf("remove a %s %s: %w", c, Describe(c, b), err)
		}
	}
	var missing [][]byte
	for _, b := range want {
		if k := s.key(b); !there[k] {
			missing = append(missing, b)
		}
	}
	return h.make(c, missing)
}

// gone: what was to be removed went with something else.
func gone(err error) bool {
	return errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ESRCH) || errors.Is(err, unix.EADDRNOTAVAIL) || errors.Is(err, unix.EINVAL)
}

// Add makes messages beside what is there, and returns those that could not be
// made.
func (h *Handle) Add(c Category, list [][]byte) (failed []string) {
	for _, b := range h.try(c, list, new(error)) {
		failed = append(failed, c.String()+" "+Describe(c, b))
	}
	return failed
}

func (h *Handle) make(c Category, list [][]byte) error {
	var last error
	if failed := h.try(c, list, &last); len(failed) > 0 {
		return last
	}
	return nil
}

// try adds messages. One that fails is tried again when others are made, since it
// may need them: a route its gateway's, a class its parent. Those that fail for
// good are returned with the error of the last.
func (h *Handle) try(c Category, list [][]byte, last *error) (failed [][]byte) {
	flags := netlink.Create | netlink.Excl
	switch c {
	case Neighbours, Disciplines, Classes:
		flags = netlink.Create | netlink.Replace
	case Routes: // several may differ in their next hop only
		flags = netlink.Create | netlink.Append
	}
	if c == Classes {
		list = parentsFirst(list)
	}
	for len(list) > 0 {
		failed = nil
		for _, b := range list {
			err := h.do(shapes[c].add, flags, b)
			if err != nil && !errors.Is(err, unix.EEXIST) {
				failed = append(failed, b)
				*last = fmt.Errorf("make a %s %s: %w", c, Describe(c, b), err)
			}
		}
		if len(failed) == len(list) {
			return failed
		}
		list = failed
	}
	return nil
}

// parentsFirst sorts classes: one whose parent is not there yet would be made at
// the root.
func parentsFirst(list [][]byte) (out [][]byte) {
	const handle, parent = 8, 12 // of struct tcmsg
	waits := func(b []byte, left [][]byte) bool {
		for _, o := range left {
			if string(o[handle:handle+4]) == string(b[parent:parent+4]) && string(o[4:8]) == string(b[4:8]) {
				return true
			}
		}
		return false
	}
	for len(list) > 0 {
		var later [][]byte
		for _, b := range list {
			if waits(b, list) {
				later = append(later, b)
			} else {
				out = append(out, b)
			}
		}
		if len(later) == len(list) {
			return append(out, later...) // a circle: the kernel refuses it
		}
		list = later
	}
	return out
}

// Key tells a trimmed message from others, whatever is left of its life.
func Key(c Category, body []byte) string { return shapes[c].key(body) }
