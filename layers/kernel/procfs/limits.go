// SPDX-License-Identifier: Apache-2.0

package procfs

import (
	"bytes"
	"errors"
	"fmt"
)

// Unlimited is RLIM_INFINITY.
const Unlimited = ^uint64(0)

// Limit is one resource limit in the units of getrlimit(2).
type Limit struct {
	Soft, Hard uint64
}

// NumLimits is RLIM_NLIMITS: the number of resources.
const NumLimits = 16

// Limits is indexed by RLIMIT_* of asm-generic/resource.h (x86 uses these
// numbers): RLIMIT_CPU is 0, RLIMIT_RTTIME is 15.
type Limits [NumLimits]Limit

// limitNames are the lines of fs/proc/base.c, lnames, in order of RLIMIT_*.
var limitNames = [NumLimits]string{
	"Max cpu time", "Max file size", "Max data size", "Max stack size",
	"Max core file size", "Max resident set", "Max processes", "Max open files",
	"Max locked memory", "Max address space", "Max file locks", "Max pending signals",
	"Max msgqueue size", "Max nice priority", "Max realtime priority", "Max realtime timeout",
}

// ParseLimits reads /proc/PID/limits: a heading and all 16 resources, in any
// order, each exactly once.
func ParseLimits(data []byte) (Limits, error) {
	p := limitsParser{}
	if err := eachLine("limits", data, p.line); err != nil {
		return Limits{}, err
	}
	for i, seen := range p.seen {
		if !seen {
			return Limits{}, parseError("limits", 0, data, fmt.Errorf("no line %q", limitNames[i]))
		}
	}
	return p.out, nil
}

type limitsParser struct {
	out     Limits
	seen    [NumLimits]bool
	heading bool
}

func (p *limitsParser) line(line []byte) error {
	if !p.heading {
		p.heading = true
		if !bytes.HasPrefix(line, []byte("Limit ")) {
			return errors.New("no heading")
		}
		return nil
	}
	for i, name := range limitNames {
		rest, ok := bytes.CutPrefix(line, []byte(name+" "))
		if !ok {
			continue
		}
		if p.seen[i] {
			return errors.New("second line for this limit")
		}
		p.seen[i] = true
		c := cursor{rest: rest}
		p.out[i] = Limit{Soft: c.limit("soft limit"), Hard: c.limit("hard limit")}
		return c.err // the unit, if any, follows
	}
	return errors.New("unknown limit")
}

func (c *cursor) limit(what string) uint64 {
	f := c.field(what)
	if string(f) == "unlimited" {
		return Unlimited
	}
	return c.number(f, 10, 64, what)
}
