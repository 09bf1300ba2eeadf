// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"io"
	"strings"

	"github.com/io-mig/mig/spec/record"
)

// write prints a check as a list that a person can act on.
func (r *checkReport) write(w io.Writer) error {
	var b strings.Builder
	switch n := len(r.Findings); n {
	case 0:
		fmt.Fprintf(&b, "%s (pid %d) can be checkpointed\n", r.Container, r.Pid)
	case 1:
		fmt.Fprintf(&b, "%s (pid %d) cannot be checkpointed, one thing is in the way:\n", r.Container, r.Pid)
	default:
		fmt.Fprintf(&b, "%s (pid %d) cannot be checkpointed, %d things are in the way:\n", r.Container, r.Pid, n)
	}
	writeFindings(&b, r.Findings)
	if len(r.Warnings) > 0 {
		fmt.Fprintf(&b, "\nworth knowing:\n")
		writeFindings(&b, r.Warnings)
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// writeRefusal names what is in the way of a checkpoint or a move.
func (r *checkReport) writeRefusal(w io.Writer, done string) error {
	var b strings.Builder
	fmt.Fprintf(&b, "%s cannot be %s:\n", r.Container, done)
	writeFindings(&b, r.Findings)
	_, err := io.WriteString(w, b.String())
	return err
}

func writeFindings(b *strings.Builder, found []record.Finding) {
	for _, f := range found {
		fmt.Fprintf(b, "\n  %s: %s\n", place(f), oneLine(f.What))
		if f.Why != "" {
			fmt.Fprintf(b, "    why     %s\n", oneLine(f.Why))
		}
		if f.Remedy != "" {
			fmt.Fprintf(b, "    remedy  %s\n", oneLine(f.Remedy))
		}
	}
}

// place says where a finding is: process, thread, descriptor, subsystem.
func place(f record.Finding) string {
	var parts []string
	if f.Pid != 0 {
		parts = append(parts, fmt.Sprintf("pid %d", f.Pid))
	} else {
		parts = append(parts, "container")
	}
	if f.TID != 0 && f.TID != f.Pid {
		parts = append(parts, fmt.Sprintf("thread %d", f.TID))
	}
	if f.FD >= 0 {
		parts = append(parts, fmt.Sprintf("fd %d", f.FD))
	}
	return strings.Join(parts, ", ") + " (" + f.Subsystem + ")"
}
