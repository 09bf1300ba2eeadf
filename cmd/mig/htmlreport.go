// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	_ "embed"
	"errors"
	"fmt"
	"html/template"
	"io"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/io-mig/mig/layers/request/job"
	"github.com/io-mig/mig/shim/depart"
)

//go:embed report.html
var reportPage string

// reportTemplate escapes whatever containers, images and hosts are called.
var reportTemplate = template.Must(template.New("report").Funcs(template.FuncMap{
	"size": size, "took": func(ms float64) string { return took(millis(ms)) }, "plain": plain,
	"when": func(t time.Time) string { return t.Local().Format(time.DateTime) },
}).Parse(reportPage))

// reportFile is the file of a report, nil for none. It is opened before anything is
// moved: a path that is wrong should not come out afterwards.
type reportFile os.File

// openReport makes the file; an empty path means none. What is in it stays until write.
func openReport(path string) (*reportFile, error) {
	if path == "" {
		return nil, nil
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY, 0o644)
	if err != nil {
		return nil, fmt.Errorf("--report: %w", err)
	}
	return (*reportFile)(f), nil
}

// write makes it one self-contained page about one move or several, and closes it.
func (r *reportFile) write(reports ...*depart.Report) error {
	if r == nil {
		return nil
	}
	f := (*os.File)(r)
	err := f.Truncate(0)
	if errors.Is(err, unix.EINVAL) { // a pipe or a device
		err = nil
	}
	if err == nil {
		err = writeReport(f, reports...)
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return fmt.Errorf("--report: %w", err)
	}
	return nil
}

func writeReport(w io.Writer, reports ...*depart.Report) error {
	var pages []reportMove
	for _, r := range reports {
		if r != nil {
			pages = append(pages, reportMove{Report: r, Lanes: lanes(r)})
		}
	}
	var b bytes.Buffer
	if err := reportTemplate.Execute(&b, pages); err != nil {
		return err
	}
	_, err := w.Write(b.Bytes())
	return err
}

// reportMove is one move as the page shows it.
type reportMove struct {
	*depart.Report
	Lanes []lane
}

// lane is one row of the time line.
type lane struct {
	Name string
	// Y of its upper edge.
	Y    int
	Bars []timeBar
}

// timeBar is a span of time, in units of the picture.
type timeBar struct {
	X, Width float64
	Name     string
	MS       float64
	// Class is the bar's colour: phase, state or stopped.
	Class string
}

// The picture: its width, the room for names at its left, a lane's height.
const (
	pictureWidth = 1000
	nameWidth    = 120
	laneHeight   = 44
)

// stopped are the states of the source's engine in which the container does not
// run.
var stopped = map[string]bool{"holding": true, "setup": true, "residual": true, "sealing": true, "flushing": true, "switching": true}

// lanes draws phases, and the states of both engines, on one line of time.
func lanes(r *depart.Report) []lane {
	if len(r.Phases) == 0 || r.TotalMS <= 0 {
		return nil
	}
	scale := float64(pictureWidth-nameWidth) / r.TotalMS
	at := func(t time.Time) float64 {
		x := float64(t.Sub(r.Started).Microseconds()) / 1000 * scale
		return nameWidth + min(max(x, 0), pictureWidth-nameWidth)
	}
	first := lane{Name: "move"}
	for _, p := range r.Phases {
		first.Bars = append(first.Bars, timeBar{X: at(p.Started), Width: max(1, p.MS*scale), Name: string(p.Phase), MS: p.MS, Class: "phase"})
	}
	all := []lane{first}
	end := r.Started.Add(millis(r.TotalMS))
	for _, p := range r.Phases {
		if p.Phase == depart.PhaseMove {
			end = p.Started.Add(millis(p.MS))
		}
	}
	for _, side := range []struct {
		name   string
		states []job.Phase
	}{{r.Source, r.States}, {r.Destination, r.PeerStates}} {
		if len(side.states) > 0 {
			all = append(all, lane{Name: side.name, Bars: stateBars(side.states, end, at)})
		}
	}
	for i := range all {
		all[i].Y = 10 + i*laneHeight
	}
	return all
}

// stateBars: a state lasts until the next begins.
func stateBars(states []job.Phase, end time.Time, at func(time.Time) float64) []timeBar {
	var bars []timeBar
	for i, s := range states {
		until := end
		if i+1 < len(states) {
			until = states[i+1].At
		}
		if until.Before(s.At) {
			until = s.At
		}
		b := timeBar{X: at(s.At), Name: s.State, MS: float64(until.Sub(s.At).Microseconds()) / 1000, Class: "state"}
		b.Width = max(1, at(until)-b.X)
		if stopped[s.State] {
			b.Class = "stopped"
		}
		bars = append(bars, b)
	}
	return bars
}

// Height of the picture.
func (r reportMove) Height() int { return 10 + len(r.Lanes)*laneHeight }
