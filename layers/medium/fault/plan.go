// SPDX-License-Identifier: Apache-2.0

// Package fault makes a medium fail as told: for tests of what stands above it.
package fault

import (
	"fmt"
	"strconv"
	"strings"
	"sync"
	"time"
)

// Plan says what happens to each record in turn. It is written as terms joined
// by "->", each with an optional count:
//
//	3*off->1*error(oops)     the 4th record fails with "oops"
//	delay(10ms)              every record takes 10 ms longer
//	5*off->1*corrupt->off    one bit of the 6th record is flipped
//
// A term without a count holds for ever; after the last one nothing happens.
type Plan struct {
	mu    sync.Mutex
	terms []term
}

type verb int

const (
	off verb = iota
	fail
	delay
	corrupt
)

type term struct {
	left  int // -1: for ever
	do    verb
	text  string
	pause time.Duration
}

// Parse reads a plan.
func Parse(s string) (*Plan, error) {
	p := &Plan{}
	for part := range strings.SplitSeq(s, "->") {
		t, err := parseTerm(strings.TrimSpace(part))
		if err != nil {
			return nil, fmt.Errorf("fault plan %q: %w", s, err)
		}
		p.terms = append(p.terms, t)
	}
	return p, nil
}

func parseTerm(s string) (term, error) {
	t := term{left: -1}
	if count, rest, ok := strings.Cut(s, "*"); ok && !strings.Contains(count, "(") {
		n, err := strconv.Atoi(count)
		if err != nil || n < 1 {
			return t, fmt.Errorf("count %q: want a positive number", count)
		}
		t.left, s = n, rest
	}
	name, arg, hasArg := strings.Cut(s, "(")
	if hasArg {
		var closed bool
		if arg, closed = strings.CutSuffix(arg, ")"); !closed {
			return t, fmt.Errorf("term %q: the bracket is not closed", s)
		}
	}
	switch {
	case name == "off" && !hasArg:
	case name == "corrupt" && !hasArg:
		t.do = corrupt
	case name == "error" && hasArg:
		t.do, t.text = fail, arg
	case name == "delay" && hasArg:
		d, err := time.ParseDuration(arg)
		if err != nil || d < 0 {
			return t, fmt.Errorf("term %q: want a duration such as 10ms", s)
		}
		t.do, t.pause = delay, d
	default:
		return t, fmt.Errorf("term %q: want off, error(text), delay(time) or corrupt", s)
	}
	return t, nil
}

// next is the term for the next record.
func (p *Plan) next() term {
	if p == nil {
		return term{}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.terms) == 0 {
		return term{}
	}
	t := &p.terms[0]
	now := *t
	if t.left > 0 {
		if t.left--; t.left == 0 {
			p.terms = p.terms[1:]
		}
	}
	return now
}
