// SPDX-License-Identifier: Apache-2.0

package network

import (
	"errors"
	"fmt"

	"github.com/io-mig/mig/layers/kernel/netns"
)

// aliasOf marks the host's end of an interface that was made for a move's copy.
func aliasOf(move string) string { return "mig: move " + move }

// Unplug removes from the caller's host the interfaces that were made for a move (the
// request's Move) whose copy is given up: where its engine has died nobody else does, and
// the kernel not before the last of its connections is over, which may take minutes. It
// may be repeated, by anybody.
func Unplug(move string) error {
	h, err := netns.Open(nil)
	if err != nil {
		return fmt.Errorf("interfaces of move %s: %w", move, err)
	}
	defer h.Close()
	links, err := h.Links()
	if err != nil {
		return fmt.Errorf("interfaces of move %s: %w", move, err)
	}
	var errs []error
	for _, l := range links {
		if l.Alias != aliasOf(move) {
			continue
		}
		if err := h.Delete(l.Index); err != nil {
			errs = append(errs, fmt.Errorf("remove interface %s of move %s, whose copy was given up (ip link del %s): %w", l.Name, move, l.Name, err))
		}
	}
	return errors.Join(errs...)
}
