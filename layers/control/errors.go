// SPDX-License-Identifier: Apache-2.0

package control

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/io-mig/mig/spec/record"
)

// ErrGone is what a Constructor's Setup wraps when its process has ended since
// it was listed. Control lists the container again.
var ErrGone = errors.New("the process has ended")

// Error is how an event fails. Its first cause is what errors.Is and errors.As
// see first; what went wrong while undoing follows it.
type Error struct {
	Side Side
	// At is the state in which the event failed, End the one it ended in:
	// StateRolledBack and StateCleaned mean that nothing is left of it.
	At, End State
	// Cause is the first failure.
	Cause error
	// Undo joins the failures of undoing, nil if there were none.
	Undo error
	// Stuck are the calls that never returned. If there are any, the caller must
	// end its process.
	Stuck []*StuckError
	// Ran is set where a task of an import was let go before the failure, so
	// that the source cannot take for granted that its state is still the last.
	Ran bool
}

func (e *Error) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s failed while %s: %v", e.Side, e.At, e.Cause)
	switch e.End {
	case StateRolledBack:
		b.WriteString("; the container runs on as before")
	case StateCleaned:
		b.WriteString("; nothing is left of the copy")
	case StateHeld:
		b.WriteString("; the tasks are held where they are")
	case StateFailed:
		b.WriteString("; not everything could be put right")
	}
	if e.Undo != nil {
		fmt.Fprintf(&b, ": %v", e.Undo)
	}
	for _, s := range e.Stuck {
		if !errors.Is(e.Cause, s) && !errors.Is(e.Undo, s) {
			fmt.Fprintf(&b, "; %s: %v", s.Place, s)
		}
	}
	return b.String()
}

// Unwrap returns the cause and what followed it.
func (e *Error) Unwrap() []error {
	errs := []error{e.Cause}
	if e.Undo != nil {
		errs = append(errs, e.Undo)
	}
	for _, s := range e.Stuck {
		errs = append(errs, s)
	}
	return errs
}

// PreflightError lists everything that an export could not carry. Nothing was
// frozen when it was found.
type PreflightError struct {
	// Findings that refuse; warnings are in Result.
	Findings []record.Finding
}

func (e *PreflightError) Error() string {
	s := make([]string, len(e.Findings))
	for i, f := range e.Findings {
		s[i] = f.String()
	}
	items := "items"
	if len(s) == 1 {
		items = "item"
	}
	return fmt.Sprintf("%d %s cannot be carried: %s", len(s), items, strings.Join(s, "; "))
}

// Unwrap marks the error as one of missing support.
func (e *PreflightError) Unwrap() error { return errors.ErrUnsupported }

// Is lets errors.Is find record.ErrPassing where all findings are passing.
func (e *PreflightError) Is(target error) bool {
	return target == record.ErrPassing && !slices.ContainsFunc(e.Findings, func(f record.Finding) bool { return !f.Passing })
}

// PlaceError says where in an event a call failed.
type PlaceError struct {
	Place Place
	Err   error
}

func (e *PlaceError) Error() string { return fmt.Sprintf("%s: %v", e.Place, e.Err) }

// Unwrap returns what the call answered.
func (e *PlaceError) Unwrap() error { return e.Err }

// PanicError is a panic of a subsystem, a medium or a container, caught at the
// border of the event.
type PanicError struct {
	Value any
	Stack []byte
}

func (e *PanicError) Error() string { return fmt.Sprintf("panic: %v\n%s", e.Value, e.Stack) }

// StallError is the watchdog's: nothing advanced for its time-out.
type StallError struct {
	Timeout time.Duration
	// Active are the calls that were under way.
	Active []Place
}

func (e *StallError) Error() string {
	s := make([]string, len(e.Active))
	for i, p := range e.Active {
		s[i] = p.String()
	}
	if len(s) == 0 {
		s = []string{"no call"}
	}
	return fmt.Sprintf("nothing advanced for %s; under way: %s", e.Timeout, strings.Join(s, ", "))
}

// StuckError is a call that did not return although its context had ended. It
// is still running. Its process was not touched again, since two calls into
// one process must not overlap: the caller must end the engine process, whose
// death lets every task that it traced go on (injection is kill-safe).
type StuckError struct {
	Place Place
	// Grace is how long the call was given after Cause had ended its context.
	Grace time.Duration
	Cause error
}

func (e *StuckError) Error() string {
	return fmt.Sprintf("%v; the call has not returned %s later, so the engine process must be ended", e.Cause, e.Grace)
}

// Unwrap returns why the call should have returned.
func (e *StuckError) Unwrap() error { return e.Cause }

// UnknownSubsystemError names what a stream holds and this host cannot import.
type UnknownSubsystemError struct{ Names []string }

func (e *UnknownSubsystemError) Error() string {
	return fmt.Sprintf("the stream holds state of subsystems that this host does not have: %s (insert them or use a host of the same version)",
		strings.Join(e.Names, ", "))
}

// Unwrap marks the error as one of missing support.
func (e *UnknownSubsystemError) Unwrap() error { return errors.ErrUnsupported }

// DefectError is a broken promise inside mig.
type DefectError struct{ What string }

func (e *DefectError) Error() string { return "defect in mig: " + e.What }
