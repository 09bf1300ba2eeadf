// SPDX-License-Identifier: Apache-2.0

// Package report holds what a benchmark has measured and prints it: as tables
// for people, as Markdown and as JSON. It computes nothing that was not
// measured in the same run.
package report

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/io-mig/mig/integration/bench/machine"
	"github.com/io-mig/mig/integration/bench/stats"
)

// Report is one run of the benchmark.
type Report struct {
	// Name is that of the files, and of the marked part of a document.
	Name    string    `json:"name"`
	Started time.Time `json:"started"`
	Took    string    `json:"took"`
	Runs    int       `json:"runs"`
	// Counted says which runs count.
	Counted  string            `json:"counted,omitempty"`
	Machine  machine.Machine   `json:"machine"`
	Versions map[string]string `json:"versions"`
	Sections []*Section        `json:"sections"`
}

// Section is one table.
type Section struct {
	Title string `json:"title"`
	Note  string `json:"note,omitempty"`
	Rows  []Row  `json:"rows"`
	Goals []Goal `json:"goals,omitempty"`
	Plots []Plot `json:"plots,omitempty"`
	// Failures are the errors of what could not be measured.
	Failures []string `json:"failures,omitempty"`
}

// Row is one line of a table.
type Row struct {
	What   string       `json:"what"`
	Unit   string       `json:"unit"`
	Median float64      `json:"median"`
	Best   float64      `json:"best"`
	Worst  float64      `json:"worst"`
	Values stats.Series `json:"values"`
}

// Goal compares a ratio with what it should be.
type Goal struct {
	What  string  `json:"what"`
	Value float64 `json:"value"`
	Want  float64 `json:"want"`
	// AtLeast: the value should be Want or more, otherwise Want or less.
	AtLeast bool   `json:"at_least"`
	Unit    string `json:"unit,omitempty"` // empty: a ratio
	Met     bool   `json:"met"`
}

// Units of rows.
const (
	Milliseconds = "ms"
	Rate         = "GB/s"
	Megabytes    = "MB"
)

// Add appends a section.
func (r *Report) Add(title, note string) *Section {
	s := &Section{Title: title, Note: note}
	r.Sections = append(r.Sections, s)
	return s
}

// Row appends a line, unless nothing was measured.
func (s *Section) Row(what, unit string, values stats.Series) {
	if len(values) == 0 {
		return
	}
	row := Row{What: what, Unit: unit, Median: values.Median(), Best: values.Min(), Worst: values.Max(), Values: values}
	if unit == Rate {
		row.Best, row.Worst = row.Worst, row.Best
	}
	s.Rows = append(s.Rows, row)
}

// AtMost appends a goal: the median of a series of ratios is to be want or
// less.
func (s *Section) AtMost(what, unit string, values stats.Series, want float64) {
	if len(values) > 0 {
		v := values.Median()
		s.Goals = append(s.Goals, Goal{What: what, Value: v, Want: want, Unit: unit, Met: v <= want})
	}
}

// AtLeast is AtMost the other way round.
func (s *Section) AtLeast(what, unit string, values stats.Series, want float64) {
	if len(values) > 0 {
		v := values.Median()
		s.Goals = append(s.Goals, Goal{What: what, Value: v, Want: want, Unit: unit, AtLeast: true, Met: v >= want})
	}
}

// Fail notes what could not be measured. A nil error is nothing.
func (s *Section) Fail(what string, err error) {
	if err != nil {
		s.Failures = append(s.Failures, fmt.Sprintf("%s: %v", what, err))
	}
}

// Failed counts the failures of all sections.
func (r *Report) Failed() int {
	n := 0
	for _, s := range r.Sections {
		n += len(s.Failures)
	}
	return n
}

// Save writes NAME.json, NAME.md and the pictures, NAME-PLOT.svg, into dir.
func (r *Report) Save(dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	raw, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(dir, r.Name+".json"), append(raw, '\n'), 0o644); err != nil {
		return err
	}
	if err := r.savePlots(dir); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, r.Name+".md"), []byte(r.Markdown("")), 0o644)
}
