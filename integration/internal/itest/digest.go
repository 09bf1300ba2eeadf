// SPDX-License-Identifier: Apache-2.0

package itest

import (
	"regexp"
	"slices"
	"strings"
)

// ours starts the functions of this project in a stack.
const ours = "github.com/io-mig/mig/"

var header = regexp.MustCompile(`goroutine \d+ (?:gp=\S+ m=\S+ (?:mp=\S+ )?)?\[([^]]*)\]:`)

// digest makes one line of each goroutine that stacks show in this project's code:
// what it waits for, and its functions, the innermost first. Stacks that a log holds
// in one line, with \n for each end of a line, are understood too.
func digest(stacks string) []string {
	stacks = strings.NewReplacer(`\n`, "\n", `\t`, "\t").Replace(stacks)
	var lines []string
	for _, at := range header.FindAllStringSubmatchIndex(stacks, -1) {
		body, _, _ := strings.Cut(stacks[at[1]:], "\n\n")
		if functions := functionsOf(body); len(functions) > 0 {
			lines = append(lines, "["+stacks[at[2]:at[3]]+"] "+strings.Join(functions, " < "))
		}
	}
	slices.Sort(lines)
	return slices.Compact(lines)
}

// functionsOf names this project's functions of one goroutine.
func functionsOf(body string) (names []string) {
	for line := range strings.Lines(body) {
		name, ok := strings.CutPrefix(line, ours)
		if !ok {
			continue
		}
		if i := strings.LastIndexByte(name, '('); i > 0 { // its arguments
			name = name[:i]
		}
		names = append(names, strings.TrimSpace(name))
	}
	return names
}
