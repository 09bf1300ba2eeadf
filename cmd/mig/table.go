// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/io-mig/mig/layers/request"
)

// table shows many requests, a line each.
type table []*request.Status

func (t table) value() any {
	if t == nil {
		return []*request.Status{}
	}
	return []*request.Status(t)
}

func (t table) over() bool {
	for _, st := range t {
		if !st.Over() {
			return false
		}
	}
	return true
}

func (t table) text(width int, now time.Time) string {
	if len(t) == 0 {
		return "no requests\n"
	}
	var b strings.Builder
	w := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "REQUEST\tKIND\tNAMESPACE\tCONTAINER\tPHASE\tDONE\tSIZE\tTIME\tSTARTED\tWHERE")
	for _, st := range t {
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\n", oneLine(st.ID), oneLine(kind(st)), oneLine(st.Namespace), oneLine(st.Container),
			oneLine(shortPhase(st)), done(st), size(st.Progress.Bytes), took(lasted(st, now)), begun(st).Local().Format(time.DateTime), oneLine(where(st)))
	}
	_ = w.Flush() // a strings.Builder takes everything
	return clip(b.String(), width)
}

// shortPhase is a request's phase, as a word.
func shortPhase(st *request.Status) string {
	if st.Doubt != nil {
		return "in doubt"
	}
	return string(st.Phase)
}

// done is the share of the work that is done, as far as it is known.
func done(st *request.Status) string {
	if st.Phase == request.Succeeded {
		return "100%"
	}
	f, ok := share(st)
	if !ok {
		return "-"
	}
	return fmt.Sprintf("%.0f%%", f*100)
}

// share of the bytes that have gone through, 0 to 1.
func share(st *request.Status) (float64, bool) {
	p := st.Progress
	if p.Total == 0 {
		return 0, false
	}
	return min(1, float64(p.Bytes)/float64(p.Total)), true
}

// clip shortens lines to a terminal's width, so that each takes one row.
func clip(s string, width int) string {
	if width <= 0 {
		return s
	}
	lines := strings.Split(s, "\n")
	for i, line := range lines {
		if r := []rune(line); len(r) > width {
			lines[i] = string(r[:width-1]) + "…"
		}
	}
	return strings.Join(lines, "\n")
}
