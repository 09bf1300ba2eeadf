// SPDX-License-Identifier: Apache-2.0

//go:build linux && amd64

package tracer

import (
	"errors"
	"fmt"
)

// Avoid adds ranges that the scratch area must not touch, beside those of
// Options.Avoid and what is mapped already: the mappings of an image that
// became known after AttachFrame. It must come before the first remote call;
// later the area is mapped, and ranges that it touches are an error.
func (p *Process) Avoid(ranges ...Range) error {
	return p.do(func() error {
		if s := p.scratch; s != nil {
			for _, r := range ranges {
				// The area may grow up to its full length.
				if r.Start < s.base+scratchMaxLen && s.base < r.End {
					return fmt.Errorf("tracer: process %d: the scratch area at %#x touches %#x-%#x: %w", p.Pid, s.base, r.Start, r.End, errScratchMapped)
				}
			}
		}
		p.opts.Avoid = append(p.opts.Avoid, ranges...)
		return nil
	})
}

var errScratchMapped = errors.New("Avoid came after the first remote call")
