// SPDX-License-Identifier: Apache-2.0

package control

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"
)

// maxDump bounds one subsystem's part of a failure report, in bytes.
const maxDump = 64 << 10

// conclude enters the final state and writes the report of a failure.
func (e *Event) conclude(ctx context.Context, s State, failure *Error) (Result, error) {
	if err := e.to(s); err != nil {
		if failure == nil {
			failure = &Error{Side: e.side, At: e.current(), Cause: err}
		} else {
			failure.Undo = errors.Join(failure.Undo, err)
		}
	}
	if failure == nil {
		return e.snapshot(), nil
	}
	failure.End = s
	e.report(ctx, failure)
	e.mu.Lock()
	failure.Stuck = slices.Clone(e.abandoned)
	e.mu.Unlock()
	return e.snapshot(), failure
}

// failing tells whoever wants to pass the reason on.
func (e *Event) failing(ctx context.Context, cause error) error {
	if e.tune.Failing == nil {
		return nil
	}
	return e.lastCall(ctx, Place{Call: "tell the reason"}, func(ctx context.Context) error {
		e.tune.Failing(ctx, cause)
		return nil
	})
}

// report writes every subsystem's dump. What was refused before anything
// happened, or was cancelled, needs none.
func (e *Event) report(ctx context.Context, failure *Error) {
	var refused *PreflightError
	if e.tune.Report == nil || errors.As(failure, &refused) || errors.Is(failure, context.Canceled) {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), e.tune.Grace)
	defer cancel()
	fmt.Fprintf(e.tune.Report, "%v\n", failure)
	for _, sub := range e.subsystems {
		b := &bounded{left: maxDump}
		err := e.call(ctx, Place{Call: "dump", Subsystem: sub.Name()}, func(context.Context) error { return sub.Dump(b) })
		fmt.Fprintf(e.tune.Report, "--- %s\n%s\n", sub.Name(), b.bytes())
		if err != nil {
			fmt.Fprintf(e.tune.Report, "(%v)\n", err)
		}
	}
}

// bounded keeps the first bytes that are written to it, from a call that may
// still be writing when it is read.
type bounded struct {
	mu   sync.Mutex
	buf  bytes.Buffer
	left int
}

var errFull = errors.New("the dump exceeds its limit")

func (b *bounded) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	n := min(len(p), b.left)
	b.buf.Write(p[:n])
	b.left -= n
	if n < len(p) {
		return n, errFull
	}
	return n, nil
}

func (b *bounded) bytes() []byte {
	b.mu.Lock()
	defer b.mu.Unlock()
	return bytes.Clone(b.buf.Bytes())
}

var _ io.Writer = (*bounded)(nil)
