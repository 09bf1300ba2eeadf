// SPDX-License-Identifier: Apache-2.0

package main

import "time"

// options are the command line's.
type options struct {
	runs        int
	given       bool // runs was given, and is no default
	only, sizes string
	shim        string // empty: the one in bin/
	out         string // directory
	peer        bool

	live       bool
	strategies string        // of live moves; empty: all
	timeout    time.Duration // of one live move
}

// complete fills in what depends on the kind of benchmark.
func (o *options) complete() {
	runs, sizes := 10, "64,512,2048"
	if o.live {
		runs, sizes = 3, "1,64,512,2048"
	}
	if o.given = o.runs > 0; !o.given {
		o.runs = runs
	}
	if o.sizes == "" {
		o.sizes = sizes
	}
}

// clientRuns is how often a server with clients is moved.
func (o *options) clientRuns() int {
	if o.given {
		return o.runs
	}
	return clientMoves
}

// name is that of the report.
func (o *options) name() string {
	if o.live {
		return "live"
	}
	return "results"
}

// counted says which runs count.
func (o *options) counted() string {
	if o.live {
		return ", after one small move by everyone"
	}
	return " (large programs less often) after one that does not count"
}

func (o *options) sections() []section {
	if o.live {
		return liveSections
	}
	return sections
}
