// SPDX-License-Identifier: Apache-2.0

package job

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/io-mig/mig/layers/control"
	"github.com/io-mig/mig/spec/record"
)

// cross packs an error, sends it as JSON and unpacks it.
func cross(t *testing.T, err error) *Failure {
	t.Helper()
	b, jerr := json.Marshal(FailureOf(err))
	if jerr != nil {
		t.Fatal(jerr)
	}
	if len(b) > 3<<20 {
		t.Errorf("a failure has %d bytes", len(b))
	}
	var f Failure
	if jerr := json.Unmarshal(b, &f); jerr != nil {
		t.Fatal(jerr)
	}
	return &f
}

func TestKinds(t *testing.T) {
	for want, err := range map[FailureKind]error{
		Refused:     &control.Error{Cause: &control.PreflightError{Findings: []record.Finding{{What: "x"}}}},
		Stalled:     &control.PlaceError{Err: &control.StallError{Timeout: time.Second}},
		Damaged:     fmt.Errorf("read: %w", &record.ChecksumError{}),
		Panicked:    &control.PanicError{Value: "x"},
		Canceled:    fmt.Errorf("x: %w", context.Canceled),
		Unsupported: &control.UnknownSubsystemError{Names: []string{"gpu"}},
		Other:       errors.New("disk full"),
	} {
		f := cross(t, err)
		if f.Kind != want || f.Error() != err.Error() {
			t.Errorf("%v became %+v", err, f)
		}
		if again := FailureOf(fmt.Errorf("further on: %w", f)); again.Kind != want {
			t.Errorf("%s is %s after the second crossing", want, again.Kind)
		}
		for _, sentinel := range []error{context.Canceled, errors.ErrUnsupported} {
			if errors.Is(err, sentinel) != errors.Is(f, sentinel) {
				t.Errorf("%s: errors.Is(%v) differs", want, sentinel)
			}
		}
	}
	if FailureOf(nil) != nil {
		t.Error("no error is a failure")
	}
}

func TestWhereItEnded(t *testing.T) {
	f := cross(t, fmt.Errorf("x: %w", &control.Error{
		Side: control.SideImport, At: control.StateCommitted, End: control.StateFailed, Cause: errors.New("y"), Ran: true,
		Stuck: []*control.StuckError{{Cause: errors.New("z")}},
	}))
	if f.At != "committed" || f.End != "failed" || !f.Ran || !f.Stuck || f.Chain[len(f.Chain)-1] != "z" {
		t.Errorf("%+v", f)
	}
}

// TestHugeErrors crosses what no message could hold whole.
func TestHugeErrors(t *testing.T) {
	long := strings.Repeat("\x00", 1<<20)
	err := errors.New(long)
	for range 40 {
		err = fmt.Errorf("%s: %w", long[:10_000], err)
	}
	f := cross(t, err)
	if len(f.Chain) == 0 || len(f.Chain) > maxLinks || !strings.HasSuffix(f.Text, "bytes more)") {
		t.Errorf("%d links, %d bytes", len(f.Chain), len(f.Text))
	}
	refused := &control.PreflightError{Findings: make([]record.Finding, 500)}
	for i := range refused.Findings {
		refused.Findings[i] = record.Finding{Subsystem: "file", What: long[:4096]}
	}
	f = cross(t, refused)
	if n := len(f.Findings); n < 10 || !strings.Contains(f.Findings[n-1].What, "more findings") {
		t.Errorf("%d findings", n)
	}
	p := Progress{Warnings: []string{"a", long, "b"}}.Bounded()
	if len(p.Warnings) != 2 || p.Warnings[1] != "2 more warnings" {
		t.Errorf("%d warnings", len(p.Warnings))
	}
}
