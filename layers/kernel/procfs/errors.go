// SPDX-License-Identifier: Apache-2.0

package procfs

import (
	"errors"
	"fmt"
	"io/fs"
	"syscall"
)

// ErrTooLarge reports a file or a line beyond the limit that keeps memory
// bounded (maxFile, maxLine).
var ErrTooLarge = errors.New("larger than the reader's limit")

// errTruncated reports text whose last line has no newline: every line-based
// proc file ends with one, so the text was cut off.
var errTruncated = errors.New("line is cut off: no newline at its end")

// maxErrorText bounds how much of an offending line an error quotes.
const maxErrorText = 200

// ParseError says which text could not be understood.
type ParseError struct {
	File string // path as opened, or the bare file name for a Parse function
	Line int    // counted from 1; 0 where the file has no lines
	Text string // the offending line, shortened
	Err  error  // what is wrong with it
}

func (e *ParseError) Error() string {
	if e.Line == 0 {
		return fmt.Sprintf("%s: %v in %q", e.File, e.Err, e.Text)
	}
	return fmt.Sprintf("%s:%d: %v in %q", e.File, e.Line, e.Err, e.Text)
}

func (e *ParseError) Unwrap() error { return e.Err }

// parseError quotes at most maxErrorText bytes of text.
func parseError(file string, line int, text []byte, err error) *ParseError {
	if len(text) > maxErrorText {
		text = text[:maxErrorText]
	}
	return &ParseError{File: file, Line: line, Text: string(text), Err: err}
}

// IsGone reports whether err means that the task (or descriptor) no longer
// exists: ENOENT when opening, ESRCH when reading a file opened earlier.
func IsGone(err error) bool {
	return errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ESRCH)
}
