// SPDX-License-Identifier: Apache-2.0

package procfs

import (
	"bytes"
	"errors"
	"fmt"
	"io"
)

// maxLine bounds one line. The longest the kernel prints is a status line of
// NGROUPS_MAX (65536) supplementary groups of up to 11 bytes.
const maxLine = 1 << 20

// lineFunc consumes one line without its newline. It must not keep line.
type lineFunc func(line []byte) error

// eachLine feeds the lines of data to fn; file names the text in errors.
func eachLine(file string, data []byte, fn lineFunc) error {
	for n := 1; len(data) > 0; n++ {
		i := bytes.IndexByte(data, '\n')
		if i < 0 {
			return parseError(file, n, data, errTruncated)
		}
		if err := fn(data[:i]); err != nil {
			return parseError(file, n, data[:i], err)
		}
		data = data[i+1:]
	}
	return nil
}

// streamLines is eachLine over a reader: memory stays at one buffer whatever
// the file's length. It reuses buf and returns it, perhaps grown.
func streamLines(file string, r io.Reader, buf []byte, fn lineFunc) ([]byte, error) {
	buf = buf[:cap(buf)]
	have := 0
	for number := 1; ; {
		n, err := r.Read(buf[have:])
		have += n
		rest := buf[:have]
		for {
			i := bytes.IndexByte(rest, '\n')
			if i < 0 {
				break
			}
			if err := fn(rest[:i]); err != nil {
				return buf, parseError(file, number, rest[:i], err)
			}
			rest = rest[i+1:]
			number++
		}
		if errors.Is(err, io.EOF) {
			if len(rest) > 0 {
				return buf, parseError(file, number, rest, errTruncated)
			}
			return buf, nil
		}
		if err != nil {
			return buf, fmt.Errorf("read %s: %w", file, err)
		}
		have = copy(buf, rest)
		if have < len(buf) {
			continue
		}
		if len(buf) >= maxLine {
			return buf, parseError(file, number, rest, ErrTooLarge)
		}
		buf = append(buf, make([]byte, len(buf))...)
	}
}
