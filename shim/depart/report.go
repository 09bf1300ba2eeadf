// SPDX-License-Identifier: Apache-2.0

package depart

import (
	"slices"
	"time"

	"github.com/io-mig/mig/layers/request"
	"github.com/io-mig/mig/layers/request/job"
	"github.com/io-mig/mig/spec/record"
)

// Phase is where a move stands, as a person sees it.
type Phase string

// The phases, in their order.
const (
	PhasePreflight Phase = "pre-flight"
	PhaseOffer     Phase = "negotiate"
	PhaseImage     Phase = "copy image"
	PhasePrepare   Phase = "prepare"
	PhaseMove      Phase = "move"
	PhaseCleanUp   Phase = "clean up"
)

// Phases are all of them, in their order.
var Phases = []Phase{PhasePreflight, PhaseOffer, PhaseImage, PhasePrepare, PhaseMove, PhaseCleanUp}

// Progress is a move under way.
type Progress struct {
	Phase Phase
	// Bytes of Total in this phase; Total is 0 where it is not known.
	Bytes, Total uint64
	// Source is the source's engine, in PhaseMove.
	Source job.Progress
	// Doubt: the container stays frozen here, and has for a while. nil otherwise.
	Doubt *Doubt
}

// Doubt is a move that does not end, since its source stays frozen: see
// request.Doubt. Source and Destination are the hosts, as they name themselves.
type Doubt struct {
	request.Doubt
	Container, Source, Destination, Token string
}

// Report is what became of a move: what mig migrate prints.
type Report struct {
	Token       string `json:"token"`
	Namespace   string `json:"namespace"`
	Container   string `json:"container"`
	Source      string `json:"source"`
	Destination string `json:"destination"`
	Strategy    string `json:"strategy"`
	// Moved: the container runs on the destination.
	Moved bool `json:"moved"`
	// Removed: nothing of it is left on the source.
	Removed bool `json:"removed"`

	Rounds     []Round `json:"rounds"`
	DowntimeMS float64 `json:"downtime_ms"`
	TotalMS    float64 `json:"total_ms"`
	// InDoubtMS is how long the container stayed frozen here since it was not known
	// what became of its copy, or since the copy needed it.
	InDoubtMS float64 `json:"in_doubt_ms,omitempty"`
	// Bytes of state that were sent, Pages of memory among them, ImageBytes of
	// the container's image.
	Bytes      uint64 `json:"bytes"`
	Pages      uint64 `json:"pages"`
	ImageBytes uint64 `json:"image_bytes"`

	Started time.Time `json:"started"`
	// Phases that were gone through; those of the engines are in States.
	Phases []Span `json:"phases"`
	// States of the source's and the destination's engine, the latter by the
	// source's clock.
	States     []job.Phase `json:"states,omitempty"`
	PeerStates []job.Phase `json:"peer_states,omitempty"`
	// Steps of both engines while the container stood still, likewise.
	Steps      []job.Step      `json:"steps,omitempty"`
	PeerSteps  []job.Step      `json:"peer_steps,omitempty"`
	Subsystems []job.Subsystem `json:"subsystems,omitempty"`

	Warnings []string         `json:"warnings,omitempty"`
	Findings []record.Finding `json:"findings,omitempty"`
	Failure  *job.Failure     `json:"failure,omitempty"`
}

// Round is one pre-copy round.
type Round struct {
	Round int     `json:"round"`
	Bytes uint64  `json:"bytes"`
	MS    float64 `json:"ms"`
}

// Span is a phase and how long it took.
type Span struct {
	Phase   Phase     `json:"phase"`
	Started time.Time `json:"started"`
	MS      float64   `json:"ms"`
}

func ms(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }

// pageSize of the machines that mig knows.
const pageSize = 4096

// memoryName is the subsystem whose bytes are pages.
const memoryName = "memory"

// take fills in what the source's engine has told.
func (r *Report) take(p job.Progress) {
	r.Bytes, r.DowntimeMS, r.States, r.Subsystems = p.Bytes, ms(p.Downtime), p.Phases, p.Subsystems
	for _, s := range p.Subsystems {
		if s.Name == memoryName {
			r.Pages = s.Bytes / pageSize
		}
	}
	r.Steps = p.Steps
	for _, w := range p.Warnings { // the engine's pre-flight has found again what ours has
		if !slices.Contains(r.Warnings, w) {
			r.Warnings = append(r.Warnings, w)
		}
	}
}

// rounds gathers the early rounds as they are seen in the progress: how many
// bytes were sent, and how long it took, until the next began.
type rounds struct {
	list  []Round
	at    time.Time
	bytes uint64
}

// see takes a status of the source's request.
func (r *rounds) see(st *request.Status, now time.Time) {
	p := &st.Progress
	if r.at.IsZero() {
		r.at = now
	}
	for len(r.list) < p.Round {
		r.list = append(r.list, Round{Round: len(r.list) + 1, Bytes: p.Bytes - r.bytes, MS: ms(now.Sub(r.at))})
		r.at, r.bytes = now, p.Bytes
	}
}
