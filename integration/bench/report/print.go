// SPDX-License-Identifier: Apache-2.0

package report

import (
	"fmt"
	"io"
	"maps"
	"path"
	"slices"
	"strings"
	"text/tabwriter"
	"unicode/utf8"
)

// Print writes one section as a table for a terminal.
func (s *Section) Print(w io.Writer) {
	fmt.Fprintf(w, "\n%s\n", s.Title)
	if s.Note != "" {
		fmt.Fprintf(w, "%s\n", s.Note)
	}
	table := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
	if len(s.Rows) > 0 {
		fmt.Fprintln(table, "  \tmedian\tbest\tworst\truns")
	}
	for _, r := range s.Rows {
		fmt.Fprintf(table, "  %s\t%s %s\t%s\t%s\t%d\n", r.What, number(r.Median), r.Unit, number(r.Best), number(r.Worst), len(r.Values))
	}
	table.Flush()
	for _, g := range s.Goals {
		fmt.Fprintf(w, "  %s %s\n", g.mark(), g)
	}
	for _, f := range s.Failures {
		fmt.Fprintf(w, "  FAILED %s\n", f)
	}
}

// PrintGoals writes all goals, the sections' titles in front.
func (r *Report) PrintGoals(w io.Writer) {
	if !r.hasGoals() {
		return
	}
	fmt.Fprintf(w, "\nGoals\n")
	for _, s := range r.Sections {
		for _, g := range s.Goals {
			fmt.Fprintf(w, "  %s %s: %s\n", g.mark(), s.Title, g)
		}
	}
}

func (r *Report) hasGoals() bool {
	return slices.ContainsFunc(r.Sections, func(s *Section) bool { return len(s.Goals) > 0 })
}

// goals is the same in Markdown, as a table.
func (r *Report) goals(b *strings.Builder) {
	if !r.hasGoals() {
		return
	}
	fmt.Fprintf(b, "\n### Goals\n\n| | section | what | reached | goal |\n|---|---|---|---|---|\n")
	for _, s := range r.Sections {
		for _, g := range s.Goals {
			mark := "**missed**"
			if g.Met {
				mark = "met"
			}
			fmt.Fprintf(b, "| %s | %s | %s | %s | %s %s |\n", mark, s.Title, g.What, g.show(g.Value), g.sign(), g.show(g.Want))
		}
	}
}

func (g Goal) mark() string {
	if g.Met {
		return "met   "
	}
	return "MISSED"
}

// String is the goal and what was reached.
func (g Goal) String() string {
	return fmt.Sprintf("%s: %s, goal %s %s", g.What, g.show(g.Value), g.sign(), g.show(g.Want))
}

func (g Goal) sign() string {
	if g.AtLeast {
		return ">="
	}
	return "<="
}

func (g Goal) show(v float64) string {
	switch {
	case g.Unit != "":
		return number(v) + " " + g.Unit
	case v > 0 && v < 0.3:
		return "1/" + number(1/v)
	default:
		return fmt.Sprintf("%.0f %%", v*100)
	}
}

// number keeps three digits or so: more is noise.
func number(v float64) string {
	switch {
	case v >= 100:
		return fmt.Sprintf("%.0f", v)
	case v >= 10:
		return fmt.Sprintf("%.1f", v)
	default:
		return fmt.Sprintf("%.2f", v)
	}
}

// Markdown is the whole report; pictures is where its pictures are, "" for beside
// it.
func (r *Report) Markdown(pictures string) string {
	var b strings.Builder
	m := r.Machine
	fmt.Fprintf(&b, "Measured %s, %s, %d runs each%s.\n\n", r.Started.Format("2006-01-02 15:04 MST"), r.Took, r.Runs, r.Counted)
	kind := "bare metal"
	if m.Hypervisor {
		kind = "virtual machine"
	}
	governor := m.Governor
	if governor == "" {
		governor = "not visible"
	}
	fmt.Fprintf(&b, "- %s, %d cores, %d MB (%s); %s, kernel %s, cgroup %s\n", m.CPU, m.Cores, m.MemoryMB, kind, m.System, m.Kernel, m.Cgroups)
	fmt.Fprintf(&b, "- CPU governor: %s; transparent huge pages: %s; load before %s, after %s\n", governor, m.HugePages, m.LoadBefore, m.LoadAfter)
	for _, name := range slices.Sorted(maps.Keys(r.Versions)) {
		fmt.Fprintf(&b, "- %s: %s\n", name, r.Versions[name])
	}
	for _, note := range m.Notes {
		fmt.Fprintf(&b, "- %s\n", note)
	}
	r.goals(&b)
	for _, s := range r.Sections {
		s.markdown(&b)
		for i := range s.Plots {
			fmt.Fprintf(&b, "\n![%s](%s)\n", s.Plots[i].Title, path.Join(pictures, r.picture(&s.Plots[i])))
		}
	}
	return b.String()
}

func (s *Section) markdown(b *strings.Builder) {
	fmt.Fprintf(b, "\n### %s\n\n", s.Title)
	if s.Note != "" {
		fmt.Fprintf(b, "%s\n\n", s.Note)
	}
	width := 1
	for _, r := range s.Rows {
		width = max(width, utf8.RuneCountInString(r.What))
	}
	if len(s.Rows) > 0 {
		fmt.Fprintf(b, "| %-*s | median | best | worst | runs |\n|%s|---|---|---|---|\n", width, "", strings.Repeat("-", width+2))
	}
	for _, r := range s.Rows {
		fmt.Fprintf(b, "| %-*s | %s %s | %s | %s | %d |\n", width, r.What, number(r.Median), r.Unit, number(r.Best), number(r.Worst), len(r.Values))
	}
	if len(s.Failures) > 0 {
		fmt.Fprintln(b)
	}
	for _, f := range s.Failures {
		fmt.Fprintf(b, "- failed: %s\n", strings.ReplaceAll(f, "\n", " "))
	}
}
