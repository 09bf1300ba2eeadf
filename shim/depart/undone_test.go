// SPDX-License-Identifier: Apache-2.0

package depart

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/io-mig/mig/layers/request"
	"github.com/io-mig/mig/layers/request/job"
	"github.com/io-mig/mig/layers/request/peer"
)

// TestUndone: what a person is told of a move that did not take place is said once,
// with who ended it, and without what the engines were about at that moment.
func TestUndone(t *testing.T) {
	told := func(text string) error {
		return &peer.FailedError{Failure: &job.Failure{Kind: job.Other, Text: text}}
	}
	canceled := fmt.Errorf("move web to 10.0.0.2:7117: export failed while early: memory: %w", context.Canceled)
	failed := errors.New(`move web to 10.0.0.2:7117: export failed while early: the destination gave up: "no room"; the container runs on as before`)
	own := errors.New("move web to 10.0.0.2:7117: export failed: the disk is broken")
	for _, c := range []struct {
		name      string
		here, why error
		phase     request.Phase
		want      string
	}{
		{"time-out", canceled, errors.New("the move took longer than 1s (--timeout)"), request.Failed,
			"the move of web was given up: the move took longer than 1s (--timeout) (mig status 7 tells more)"},
		{"another terminal", canceled, told("the source has ended the move: " + canceled.Error()), request.Canceled,
			"the move of web was given up: somebody has ended it (mig abort) (mig status 7 tells more)"},
		{"destination, told twice", failed, told("import failed: no room: its disk is full; nothing is left of the copy"), request.Failed,
			"at the destination: import failed: no room: its disk is full; nothing is left of the copy; here the container runs on as before"},
		{"destination, told by what it was told", failed, told("the source has ended the move: " + failed.Error() + ": import failed: killed for want of memory"), request.Failed,
			"at the destination: import failed: killed for want of memory; here the container runs on as before"},
		{"destination, nothing but what it was told", failed, told("the source has ended the move: " + failed.Error()), request.Failed, failed.Error()},
		{"source, with what came of it there", own, told("the source has ended the move: " + own.Error() + ": import failed: the source gave up"), request.Failed, own.Error()},
		{"source, told twice", own, told("the source has ended the move: " + own.Error()), request.Failed, own.Error()},
		{"source alone", own, nil, request.Failed, own.Error()},
		{"both", own, told("import failed: no room"), request.Failed, "at the destination: import failed: no room; here: " + own.Error()},
		{"too late to be stopped", own, errors.New("interrupt signal received"), request.Failed, "interrupt signal received; here: " + own.Error()},
	} {
		m := &mover{o: Options{Container: "web"}}
		got := m.undone(c.here, c.why, &request.Status{ID: "7", Phase: c.phase})
		if got.Error() != c.want {
			t.Errorf("%s: %q, want %q", c.name, got, c.want)
		}
		if !errors.Is(got, c.here) {
			t.Errorf("%s: the shim's word is lost", c.name)
		}
	}
	up := &givenUpError{container: "web", why: errors.New("interrupt signal received"), here: canceled, runs: true}
	if !strings.Contains(up.Error(), "it runs on here") || job.FailureOf(up).Kind != job.Canceled {
		t.Errorf("%v, %+v", up, job.FailureOf(up))
	}
}
