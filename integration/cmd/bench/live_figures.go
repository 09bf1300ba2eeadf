// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"strconv"
	"strings"

	"github.com/io-mig/mig/integration/bench/move"
	"github.com/io-mig/mig/integration/bench/report"
	"github.com/io-mig/mig/integration/bench/victim"
)

// figurePoints is how far the figures of the paper on multilayer migration go:
// 1 to 9 MB, 1 to 9 processes.
const figurePoints = 9

// liveEarly is latency against size, with an early request (memory goes over
// while the program runs) and without one, of memory that is there and of address
// space without a footprint.
func liveEarly(ctx context.Context, b *bench) error {
	s := b.report.Add("Latency against size, with and without an early request, with and without a footprint",
		"Early: pre-copy, whose rounds fill the destination while the program runs. Without: stop-and-copy. Over TLS. Untouched: the program has mapped so much and touched none of it.")
	picture := report.Plot{Name: "early", Title: "Silence against size", X: "MB", Unit: report.Milliseconds, Joined: true}
	for size := 1; size <= figurePoints; size++ {
		var all []*mover
		for _, empty := range []bool{false, true} {
			pair := earlyAndLate(size, empty)
			b.compete(ctx, s, victim.Config{Megabytes: size, Empty: empty}, pair, nil)
			figureRows(s, pair...)
			name := strings.TrimSuffix(pair[0].name, " early")
			s.Row(name+" ratio early / without: silence", "", pair[0].silence.Over(pair[1].silence))
			all = append(all, pair...)
		}
		picture.Labels = append(picture.Labels, strconv.Itoa(size))
		for i, m := range all {
			if size == 1 {
				_, name, _ := strings.Cut(m.name, "MB, ")
				picture.Lines = append(picture.Lines, report.Line{Name: name})
			}
			picture.Lines[i].Points = append(picture.Lines[i].Points, m.silence)
		}
	}
	s.Plot(picture)
	return nil
}

// earlyAndLate are the movers with an early request and without one.
func earlyAndLate(size int, empty bool) []*mover {
	of := fmt.Sprintf("%d MB,", size)
	if empty {
		of += " untouched,"
	}
	return []*mover{
		{name: of + " early", order: move.Order{Strategy: "pre-copy", Transport: move.TLS}},
		{name: of + " without", order: move.Order{Strategy: "stop-and-copy", Transport: move.TLS}},
	}
}

// liveProcesses is latency against the number of processes, whose data are their
// own or one shared region.
func liveProcesses(ctx context.Context, b *bench) error {
	const size = 1
	s := b.report.Add(fmt.Sprintf("Latency against the number of processes, %d MB each or shared", size),
		"Stop-and-copy over TLS; every process compares all of its memory after the move.")
	picture := report.Plot{
		Name: "processes", Title: "Silence against processes", X: "processes", Unit: report.Milliseconds, Joined: true,
		Lines: []report.Line{{Name: "own memory"}, {Name: "one region shared"}},
	}
	for n := 1; n <= figurePoints; n++ {
		var both []*mover
		for _, shared := range []bool{false, true} {
			name := fmt.Sprintf("%d processes, own memory", n)
			if shared {
				name = fmt.Sprintf("%d processes, one region shared", n)
			}
			m := &mover{name: name, order: move.Order{Strategy: "stop-and-copy", Transport: move.TLS}}
			b.compete(ctx, s, victim.Config{Megabytes: size, Processes: n, Shared: shared}, []*mover{m}, nil)
			both = append(both, m)
		}
		figureRows(s, both...)
		picture.Labels = append(picture.Labels, strconv.Itoa(n))
		for i, m := range both {
			picture.Lines[i].Points = append(picture.Lines[i].Points, m.silence)
		}
	}
	s.Plot(picture)
	return nil
}

func figureRows(s *report.Section, movers ...*mover) {
	for _, m := range movers {
		s.Row(m.name+": silence", report.Milliseconds, m.silence)
		s.Row(m.name+": mig migrate", report.Milliseconds, m.total)
	}
}
