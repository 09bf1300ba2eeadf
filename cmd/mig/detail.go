// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/io-mig/mig/layers/request"
)

// detail shows one request whole.
type detail struct{ st *request.Status }

func (d detail) value() any { return d.st }

func (d detail) over() bool { return d.st.Over() }

func (d detail) text(width int, now time.Time) string {
	var b strings.Builder
	st := d.st
	w := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	line := func(name, format string, args ...any) {
		fmt.Fprintf(w, "%s\t%s\n", name, oneLine(fmt.Sprintf(format, args...)))
	}
	line("request", "%s", st.ID)
	line(kind(st), "%s, namespace %s", st.Container, st.Namespace)
	what := "image"
	switch kind(st) {
	case moveOut:
		what = "to"
	case moveIn:
		what = "from"
	}
	line(what, "%s", where(st))
	if st.Token != "" {
		line("token", "%s", st.Token)
	}
	line("phase", "%s", d.phase())
	if st.Doubt != nil {
		line("since", "%s", st.Doubt.Since.Local().Format(time.DateTime))
		line("asks", "%s, which says: %s", st.Doubt.Destination, answerText(st.Doubt))
	}
	line("started", "%s", begun(st).Local().Format(time.DateTime))
	line("time", "%s", took(lasted(st, now)))
	if st.Progress.Downtime > 0 {
		if kind(st) == moveIn { // what came before is the source's to tell
			line("went on", "%s after the last of its state", took(st.Progress.Downtime))
		} else {
			line("stopped for", "%s", took(st.Progress.Downtime))
		}
	}
	line("moved", "%s in %d records, %s", size(st.Progress.Bytes), st.Progress.Records, rate(st, now))
	_ = w.Flush()
	if !st.Phase.Final() && width > 0 {
		b.WriteString(bar(st, width))
	}
	d.subsystems(&b)
	for _, warning := range st.Progress.Warnings {
		fmt.Fprintf(&b, "\nwarning: %s\n", indent(plain(warning), "  "))
	}
	d.failure(&b)
	return b.String()
}

// phase is the phase, and where the event stands in it.
func (d detail) phase() string {
	switch st := d.st; {
	case st.Doubt != nil && st.Doubt.Needed:
		return "in doubt: the copy runs and may need memory of this container, which stays frozen (kill it if the copy is of no use)"
	case st.Doubt != nil && !st.Phase.Final():
		return "in doubt whether the copy runs: COMMIT was not answered in time, its host is asked again, and this container stays frozen meanwhile"
	case st.Doubt != nil:
		return "in doubt whether the copy runs: this container stays frozen (mig abort --force lets it go on, if the copy is dead for good)"
	case st.Phase == request.Lost:
		return "lost: its shim has died, and the engine with it"
	case st.Phase.Final() || st.Progress.State == "":
		return string(st.Phase)
	default:
		return fmt.Sprintf("%s, %s", st.Phase, st.Progress.State)
	}
}

func (d detail) subsystems(b *strings.Builder) {
	var some bool
	w := tabwriter.NewWriter(b, 0, 0, 2, ' ', 0)
	for _, s := range d.st.Progress.Subsystems {
		if s.Entities == 0 && s.Bytes == 0 {
			continue
		}
		if !some {
			fmt.Fprintln(w, "\nSUBSYSTEM\tENTITIES\tSIZE\t")
			some = true
		}
		fmt.Fprintf(w, "%s\t%d\t%s\t%s\n", oneLine(s.Name), s.Entities, size(s.Bytes), oneLine(s.Note))
	}
	_ = w.Flush()
}

// ends says what the event's last state means for the container.
var ends = map[string]string{
	"rolled back": "the container runs on as before",
	"cleaned":     "nothing is left of the copy",
	"held":        "the container is held: whether a copy runs is not known",
}

func (d detail) failure(b *strings.Builder) {
	f := d.st.Failure
	if f == nil {
		return
	}
	fmt.Fprintf(b, "\n%s", oneLine(string(f.Kind)))
	if f.At != "" {
		fmt.Fprintf(b, " at %s", oneLine(f.At))
	}
	if end := ends[f.End]; end != "" {
		fmt.Fprintf(b, "; %s", end)
	}
	fmt.Fprintf(b, ":\n  %s\n", indent(plain(f.Text), "  "))
	writeFindings(b, f.Findings)
}
