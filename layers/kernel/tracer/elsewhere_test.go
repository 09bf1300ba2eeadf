// SPDX-License-Identifier: Apache-2.0

//go:build linux && amd64

package tracer

import (
	"errors"
	"testing"

	"golang.org/x/sys/unix"
)

// TestWaitFor: a goroutine that is waited for on the tracer's thread may have that
// thread do something, and so may one that is waited for elsewhere.
func TestWaitFor(t *testing.T) {
	tr := New()
	defer tr.Close()
	const depth = 3
	want := errors.New("from the innermost")
	var nested func(n int) error
	nested = func(n int) error {
		if n == 0 {
			return want
		}
		done := make(chan error, 1)
		go func() {
			done <- tr.Do(func() error {
				if unix.Gettid() != tr.tid {
					t.Errorf("on thread %d, the tracer's is %d", unix.Gettid(), tr.tid)
				}
				return nested(n - 1)
			})
		}()
		return WaitFor(done)
	}
	if err := tr.Do(func() error { return nested(depth) }); err != want { //nolint:errorlint // the very one
		t.Error(err)
	}
	if err := nested(depth); err != want { //nolint:errorlint // the very one
		t.Error(err)
	}
}
