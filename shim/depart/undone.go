// SPDX-License-Identifier: Apache-2.0

package depart

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/io-mig/mig/layers/request"
	"github.com/io-mig/mig/layers/request/peer"
)

// givenUpError is a move that somebody has ended before it was decided. What the engines
// were about then is no matter to a person: mig status tells it, and so does the
// report as JSON, by the causes of its failure.
type givenUpError struct {
	container string
	why, here error
	// request on this host, empty if there is none; runs: the container does, here.
	request string
	runs    bool
}

func (e *givenUpError) Error() string {
	s := fmt.Sprintf("the move of %s was given up: %v", e.container, e.why)
	if e.runs {
		s += "; it runs on here"
	}
	if e.request != "" {
		s += fmt.Sprintf(" (mig status %s tells more)", e.request)
	}
	return s
}

func (e *givenUpError) Unwrap() []error { return []error{e.why, e.here} }

// undone is the error of a move that did not take place. here is the shim's word; why
// is the destination's, or that of whoever has ended this program or its patience;
// nil if there is none. st is the request's status, or nil.
func (m *mover) undone(here, why error, st *request.Status) error {
	var told *peer.FailedError
	if errors.As(why, &told) {
		text := theirs(told, here)
		switch gaveUp := strings.Contains(here.Error(), destinationGaveUp); {
		case gaveUp && text != "": // it has told us less by its engine
			return &destinationError{text, told, here}
		case gaveUp, text == "", text != told.Text: // it repeats us
			why, told = nil, nil
		}
	}
	if why == nil && st != nil && st.Phase == request.Canceled {
		why = errors.New("somebody has ended it (mig abort)")
	}
	switch {
	case why == nil:
		return here
	case told == nil && errors.Is(here, context.Canceled):
		up := &givenUpError{container: m.o.Container, why: why, here: here}
		if st != nil {
			up.request = st.ID
		}
		return up
	}
	return fmt.Errorf("%w; here: %w", why, here)
}

// destinationGaveUp is how the source's engine tells what the destination's has told it
// (switchover.PeerError). The shim's word crosses as a text.
const destinationGaveUp = "the destination gave up: "

// theirs is what the destination says of its own: one that was told that the move is
// over begins with what it was told.
func theirs(told *peer.FailedError, here error) string {
	aborted := peer.ErrAborted.Error()
	if !strings.HasPrefix(told.Text, aborted) {
		if told.Text == here.Error() {
			return ""
		}
		return told.Text
	}
	_, rest, _ := strings.Cut(told.Text, here.Error())
	return strings.TrimPrefix(rest, ": ")
}

// destinationError is a move that failed at the destination. What is known of that here
// are the words of one engine to the other.
type destinationError struct {
	text string
	told *peer.FailedError
	here error
}

func (e *destinationError) Error() string {
	const runsOn = "the container runs on as before"
	s := "at the destination: " + e.text
	if strings.Contains(e.here.Error(), runsOn) {
		return s + "; here " + runsOn
	}
	return s + "; here: " + e.here.Error()
}

func (e *destinationError) Unwrap() []error { return []error{e.told, e.here} }
