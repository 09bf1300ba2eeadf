// SPDX-License-Identifier: Apache-2.0

package request

import (
	"fmt"
	"os"
	"strings"
	"sync"
)

// MaxLog bounds an engine's log file, in bytes.
const MaxLog = 4 << 20

// tailBytes of an engine's output are kept for its obituary.
const tailBytes = 4 << 10

// output takes an engine's standard output and error: all of it up to MaxLog in
// a file, and the end of it in memory. Writing never fails, so that a full disk
// cannot hold up the engine.
type output struct {
	mu   sync.Mutex
	file *os.File // nil: none
	left int
	last []byte
}

func newOutput(name string) (*output, error) {
	o := &output{left: MaxLog}
	if name == "" {
		return o, nil
	}
	f, err := os.OpenFile(name, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return nil, fmt.Errorf("log of the engine: %w", err)
	}
	o.file = f
	return o, nil
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.last = append(o.last, p...)
	if n := len(o.last); n > tailBytes {
		o.last = append(o.last[:0], o.last[n-tailBytes:]...)
	}
	if o.file == nil || o.left == 0 {
		return len(p), nil
	}
	n := min(len(p), o.left)
	o.left -= n
	if _, err := o.file.Write(p[:n]); err != nil {
		o.left = 0
	} else if o.left == 0 {
		fmt.Fprintf(o.file, "\n(the log ends at %d bytes)\n", MaxLog)
	}
	return len(p), nil
}

// tail returns the last lines, whole ones where there is more than one.
func (o *output) tail() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	s := strings.ToValidUTF8(string(o.last), "?")
	if len(o.last) == tailBytes {
		if _, rest, ok := strings.Cut(s, "\n"); ok {
			s = rest
		}
	}
	return strings.TrimSpace(s)
}

func (o *output) Close() error {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.file == nil {
		return nil
	}
	f := o.file
	o.file = nil
	return f.Close()
}
