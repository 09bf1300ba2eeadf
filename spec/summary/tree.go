// SPDX-License-Identifier: Apache-2.0

package summary

import (
	"bufio"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/docker/go-units"
)

// WriteTree prints the summary for a person, largest parts first. With
// mappings, every range of memory that holds pages gets a line.
func (im *Image) WriteTree(w io.Writer, mappings bool) error {
	b := bufio.NewWriter(w)
	fmt.Fprintf(b, "%s in %d records\n", size(im.Total.Bytes), im.Total.Records)
	if len(im.Shared) > 0 {
		fmt.Fprintf(b, "├─ shared\n")
		writeCounts(b, "│  ", im.Shared, nil)
	}
	for i, p := range im.Processes {
		branch, indent := "├─", "│  "
		if i == len(im.Processes)-1 {
			branch, indent = "└─", "   "
		}
		fmt.Fprintf(b, "%s process %d: pid %d %q, %s, %d threads, %d descriptors\n", branch, p.ID, p.Pid, p.Name, printable(p.Executable), p.Threads, p.FDs)
		var below func(string)
		if mappings {
			below = func(indent string) { writeMappings(b, indent, p.Mappings) }
		}
		writeCounts(b, indent, p.Subsystems, below)
	}
	return b.Flush()
}

func writeCounts(w io.Writer, indent string, counts map[string]*Count, memory func(string)) {
	var names []string
	for n := range counts {
		names = append(names, n)
	}
	slices.SortFunc(names, func(a, b string) int {
		if counts[a].Bytes != counts[b].Bytes {
			return int(min(max(int64(counts[b].Bytes)-int64(counts[a].Bytes), -1), 1))
		}
		return strings.Compare(a, b)
	})
	for i, n := range names {
		branch, deeper := "├─", "│  "
		if i == len(names)-1 {
			branch, deeper = "└─", "   "
		}
		fmt.Fprintf(w, "%s%s %-12s %10s  %d records\n", indent, branch, n, size(counts[n].Bytes), counts[n].Records)
		if n == "memory" && memory != nil {
			memory(indent + deeper)
		}
	}
}

func writeMappings(w io.Writer, indent string, list []Mapping) {
	for _, m := range list {
		if m.Bytes > 0 {
			fmt.Fprintf(w, "%s%012x-%012x %s %10s of %-10s %s\n", indent, m.Start, m.Start+m.Length, m.Permissions, size(m.Bytes), size(m.Length), printable(m.Path))
		}
	}
}

func size(n uint64) string { return units.BytesSize(float64(n)) }

// printable keeps names out of an image from writing to the terminal.
func printable(s string) string {
	if strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || r == 0x7f || r >= 0x80 && r < 0xa0 }) {
		return fmt.Sprintf("%q", s)
	}
	return s
}
