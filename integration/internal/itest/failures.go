// SPDX-License-Identifier: Apache-2.0

package itest

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// What the end of a run repeats of each failed test: these many of its first and of
// its last lines, each cut.
const (
	shownLines = 8
	shownWidth = 400
)

// repeatFailures has the failures of the tests that now run repeated by the function
// it returns, which is called once behind them: the logs of daemons bury what a test
// itself says, and where only the end of a run is kept, lose it.
func repeatFailures() (repeat func()) {
	stdout := os.Stdout
	r, w, err := os.Pipe()
	if err != nil {
		return func() { fmt.Fprintln(os.Stderr, "no failure can be repeated:", err) }
	}
	os.Stdout = w
	var f failures
	done := make(chan struct{})
	go func() {
		defer close(done)
		in := bufio.NewReader(r)
		for {
			line, err := in.ReadString('\n')
			_, _ = io.WriteString(stdout, line)
			f.line(strings.TrimSuffix(line, "\n"))
			if err != nil {
				return
			}
		}
	}()
	return func() {
		os.Stdout = stdout
		_ = w.Close()
		<-done
		_ = r.Close()
		if testing.Verbose() { // a test's lines come before its verdict, and all at once
			return
		}
		for _, line := range f.repeated() {
			fmt.Println(line)
		}
	}
}

// failures are the failed tests in what the testing package prints.
type failures struct {
	tests []*failure
	// speaks is whose lines those without a place in a file are, nil for a quotation
	// of a daemon's log.
	speaks *failure
}

// failure is one of them, and what it says.
type failure struct {
	name   string
	indent int
	lines  []string
}

var (
	verdict = regexp.MustCompile(`^( *)--- (\w+): (\S+)`)
	spoken  = regexp.MustCompile(`^( +)\w+\.go:\d+: `)
	// quotation is how tests begin what a daemon or a program has said at length.
	quotation = regexp.MustCompile(`( says|, in full):$`)
)

// testIndent is by how much testing indents what a test says below its verdict.
const testIndent = 4

// line takes the next line.
func (f *failures) line(line string) {
	if m := verdict.FindStringSubmatch(line); m != nil {
		f.tests = append(f.tests, &failure{name: m[3], indent: len(m[1])})
		f.speaks = nil
		return
	}
	if m := spoken.FindStringSubmatch(line); m != nil {
		f.speaks = f.speaker(len(m[1]))
		if quotation.MatchString(line) {
			f.speaks = nil
		}
	}
	if f.speaks != nil && strings.HasPrefix(line, " ") {
		f.speaks.lines = append(f.speaks.lines, line[:min(len(line), shownWidth)])
	}
}

// speaker is the test whose lines are indented so: a parent may speak behind its
// children.
func (f *failures) speaker(indent int) *failure {
	for _, t := range slices.Backward(f.tests) {
		if t.indent+testIndent == indent {
			return t
		}
	}
	return nil
}

// repeated is each test that failed itself with what it said.
func (f *failures) repeated() (lines []string) {
	for _, t := range f.tests {
		if len(t.lines) == 0 {
			continue
		}
		lines = append(lines, "failed: "+t.name)
		if n := len(t.lines) - 2*shownLines; n > 0 {
			lines = append(lines, t.lines[:shownLines]...)
			lines = append(lines, fmt.Sprintf("    [%d lines]", n))
			t.lines = t.lines[n+shownLines:]
		}
		lines = append(lines, t.lines...)
	}
	return lines
}
