// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"io"
	"os"
	"time"
)

// screen prints one line per step: what, how long, what came out.
type screen struct {
	out    io.Writer
	colour bool // a terminal: the line shows up at once and is completed
}

// step runs do and prints its line. An error leaves a cross and is returned.
func (s screen) step(what string, do func() (string, error)) error {
	if s.colour {
		fmt.Fprintf(s.out, "  \x1b[2m…\x1b[0m %s", what)
	}
	started := time.Now()
	note, err := do()
	took := fmt.Sprintf("%6d ms", time.Since(started).Milliseconds())
	mark, begin := "✓", ""
	if err != nil {
		mark = "✗"
	}
	if s.colour {
		tint := map[string]string{"✓": "\x1b[32m", "✗": "\x1b[31m"}[mark]
		mark, took, begin = tint+mark+"\x1b[0m", "\x1b[2m"+took+"\x1b[0m", "\r\x1b[K"
	}
	fmt.Fprintf(s.out, "%s  %s %-61s %s", begin, mark, what, took)
	if note != "" {
		fmt.Fprintf(s.out, "   %s", note)
	}
	fmt.Fprintln(s.out)
	return err
}

func isTerminal(f *os.File) bool {
	info, err := f.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0
}
