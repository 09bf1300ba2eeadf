// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"io"
	"strings"
	"sync"
	"time"

	"github.com/io-mig/mig/shim/depart"
)

// moveScreen shows a move phase by phase, on a terminal; elsewhere nothing but that
// its container is in doubt.
type moveScreen struct {
	screen *screen
	quiet  bool
	doubts doubts

	mu     sync.Mutex
	shown  time.Time
	began  time.Time // of the phase
	phase  depart.Phase
	before []string // lines of the phases that have ended
	last   depart.Progress
}

func newMoveScreen(w io.Writer, quiet bool) *moveScreen {
	s := newScreen(w)
	return &moveScreen{screen: s, quiet: quiet || !s.live(), doubts: doubts{w: w}, began: time.Now()}
}

// underWay marks the line of a phase that has not ended.
const underWay = "..."

// show is depart's Observe.
func (s *moveScreen) show(p depart.Progress) {
	if s.quiet {
		s.doubts.show(p.Doubt)
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	if p.Phase != s.phase {
		s.next(p.Phase, "done", now)
	} else if now.Sub(s.shown) < pollEvery {
		return
	}
	s.last, s.shown = p, now
	s.draw(now)
}

// next ends the line of a phase, which has come to such an end.
func (s *moveScreen) next(p depart.Phase, end string, now time.Time) {
	if s.phase != "" {
		s.before = append(s.before, s.line(end, now))
	}
	s.phase, s.began, s.last = p, now, depart.Progress{Phase: p}
}

func (s *moveScreen) line(mark string, now time.Time) string {
	line := fmt.Sprintf("%-6s %-11s %8s", mark, s.phase, took(now.Sub(s.began)))
	if s.last.Bytes > 0 {
		line += "  " + size(s.last.Bytes)
	}
	if n := s.last.Source.Round; n > 0 {
		line += fmt.Sprintf(", round %d", n)
	}
	if st := s.last.Source.State; st != "" && mark == underWay {
		line += ", " + st
	}
	return line
}

func (s *moveScreen) draw(now time.Time) {
	var b strings.Builder
	for _, l := range s.before {
		b.WriteString(l + "\n")
	}
	if s.phase != "" {
		b.WriteString(s.line(underWay, now) + "\n")
		b.WriteString(phaseBar(s.last, terminalWidth(s.screen.w)))
		if s.last.Doubt != nil {
			b.WriteString(doubtText(s.last.Doubt))
		}
	}
	_ = s.screen.show(b.String()) // nothing else could be told on it
}

// end shows the last phase as ended, or as the one in which the move has failed.
func (s *moveScreen) end(err error) {
	if s.quiet {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	now, end := time.Now(), "done"
	if err != nil {
		end = "failed"
	}
	s.next("", end, now)
	s.draw(now)
}

// phaseBar is a progress bar of a phase whose size is known.
func phaseBar(p depart.Progress, width int) string {
	if p.Total == 0 {
		return ""
	}
	return barOf(min(1, float64(p.Bytes)/float64(p.Total)), width)
}
