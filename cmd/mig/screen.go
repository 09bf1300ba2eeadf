// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"io"
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/io-mig/mig/layers/request"
)

// terminalWidth is the number of columns of w's terminal, 0 if it is none.
func terminalWidth(w io.Writer) int {
	f, ok := w.(*os.File)
	if !ok {
		return 0
	}
	size, err := unix.IoctlGetWinsize(int(f.Fd()), unix.TIOCGWINSZ)
	if err != nil {
		return 0
	}
	if size.Col == 0 {
		return 80 // a terminal that nobody has told its size
	}
	return int(size.Col)
}

// screen shows one text in the place of the one before, on a terminal; elsewhere
// one after the other.
type screen struct {
	w    io.Writer
	tty  bool
	rows int // of the last text
}

func newScreen(w io.Writer) *screen { return &screen{w: w, tty: terminalWidth(w) > 0} }

func (s *screen) live() bool { return s.tty }

func (s *screen) show(text string) error {
	if !s.tty {
		_, err := io.WriteString(s.w, text)
		return err
	}
	text = clip(text, terminalWidth(s.w))
	back := ""
	if s.rows > 0 {
		back = fmt.Sprintf("\x1b[%dF", s.rows) // to the beginning of the line n rows up
	}
	// \x1b[J clears to the end of the screen, \x1b[K to the end of the line: what
	// was there stays until it is written over, so nothing flickers.
	_, err := io.WriteString(s.w, back+strings.ReplaceAll(text, "\n", "\x1b[K\n")+"\x1b[J")
	s.rows = strings.Count(text, "\n")
	return err
}

// bar is a progress bar as wide as the terminal allows.
func bar(st *request.Status, width int) string {
	f, ok := share(st)
	if !ok {
		return ""
	}
	return barOf(f, width)
}

// barOf shows a share of 0 to 1.
func barOf(f float64, width int) string {
	n := min(width, 80) - len("[] 100%")
	if n < 10 {
		return ""
	}
	full := int(f * float64(n))
	return fmt.Sprintf("[%s%s] %3.0f%%\n", strings.Repeat("#", full), strings.Repeat("-", n-full), f*100)
}
