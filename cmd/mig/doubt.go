// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"io"
	"sync"

	"github.com/io-mig/mig/layers/control/handover"
	"github.com/io-mig/mig/layers/request"
	"github.com/io-mig/mig/shim/depart"
)

// doubtText tells a person that a move does not end, and what decides it.
func doubtText(d *depart.Doubt) string {
	container, source, destination := oneLine(d.Container), oneLine(d.Source), oneLine(d.Destination)
	if d.Needed {
		return fmt.Sprintf(`%s stays frozen on %s: its copy runs on %s and may lack
memory that is only here. It ends here when the copy has everything. If the copy is
of no use any more, kill %s here. mig status shows it.
%s: %s
`, container, source, destination, container, destination, answerText(&d.Doubt))
	}
	decides := "It goes on here, or ends, as soon as " + destination + " says which."
	if d.Answer == handover.Lost.String() {
		decides = "You decide."
	}
	return fmt.Sprintf(`%s is frozen on %s, in doubt whether its copy on %s runs.
%s: %s
%s mig status shows it. If the copy
is dead for good, let %s go on here with: mig abort --force %s
`, container, source, destination, destination, answerText(&d.Doubt), decides, container, d.Token)
}

// answerText is what the destination says, for a person.
func answerText(d *request.Doubt) string {
	switch d.Answer {
	case handover.Lost.String():
		return "LOST: the engine died while it let the copy go, which may have run and is gone"
	case handover.Ready.String():
		return "READY: the copy is not let go so far"
	case handover.Running.String():
		return "RUNNING: the copy runs"
	}
	return oneLine(d.Answer)
}

// doubts writes what is to be said of doubts, once for each answer.
type doubts struct {
	w io.Writer

	mu   sync.Mutex
	said string
}

// show takes the doubt of a progress; nil is none.
func (s *doubts) show(d *depart.Doubt) {
	if d == nil {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if text := doubtText(d); text != s.said {
		s.said = text
		_, _ = io.WriteString(s.w, text) // nothing else could be told on it
	}
}
