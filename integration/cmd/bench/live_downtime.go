// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"strconv"
	"strings"

	"github.com/io-mig/mig/integration/bench/move"
	"github.com/io-mig/mig/integration/bench/report"
	"github.com/io-mig/mig/integration/bench/stats"
	"github.com/io-mig/mig/integration/bench/victim"
)

// Goals of live moves: the program's silence as a part of the peer's.
const (
	goalIdle      = 1.0 / 150 // idle
	goalDirty     = 1.0 / 40  // while 100 MB/s are dirtied
	goalStopped   = 1.0       // stop-and-copy, over the bridge
	goalGrowth    = 1.5       // of 2048 MB, in that of 64 MB
	goalSize      = 512       // megabytes at which the first two hold
	goalDirtyRate = 100       // MB/s
)

// growth are the sizes between which downtime should not grow.
var growth = struct{ small, large int }{64, 2048}

// isLive: strategies that send memory while the program runs, and for which the
// goals of short silences hold.
func (m *mover) isLive() bool {
	return m.order.Strategy == "pre-copy" || m.order.Strategy == "post-copy" || m.order.Strategy == "hybrid"
}

// liveIdle is programs of several sizes that do not write to their data.
func liveIdle(ctx context.Context, b *bench) error {
	sizes, err := b.megabytes()
	if err != nil {
		return err
	}
	silences := map[string]map[int]stats.Series{} // by mover and size
	picture := report.Plot{Name: "idle", Title: "Silence of an idle program while it is moved", X: "MB", Unit: report.Milliseconds, Joined: true}
	var last *report.Section
	for _, size := range sizes {
		movers, peer, section := b.liveTable(ctx, victim.Config{Megabytes: size})
		last = section
		for _, m := range movers {
			if silences[m.name] == nil {
				silences[m.name] = map[int]stats.Series{}
			}
			silences[m.name][size] = m.silence
		}
		addSilences(&picture, strconv.Itoa(size), movers, peer)
		if err := b.flush(); err != nil {
			return err
		}
	}
	for _, m := range b.movers(move.TLS) {
		if by := silences[m.name]; m.isLive() {
			grown := by[growth.large].Over(by[growth.small])
			last.AtMost(fmt.Sprintf("%s: silence at %d MB, of that at %d MB", m.name, growth.large, growth.small), "", grown, goalGrowth)
		}
	}
	last.Plot(picture)
	return nil
}

// addSilences adds a label, with the silences of movers and of the peer, which may be
// nil, to a picture. The movers are the same each time.
func addSilences(p *report.Plot, label string, movers []*mover, peer *entrant) {
	p.Labels = append(p.Labels, label)
	add := func(i int, name string, silence stats.Series) {
		if i == len(p.Lines) {
			p.Lines = append(p.Lines, report.Line{Name: name})
		}
		p.Lines[i].Points = append(p.Lines[i].Points, silence)
	}
	for i, m := range movers {
		add(i, m.name, m.silence)
	}
	if peer != nil {
		add(len(movers), peer.name, peer.silence)
	}
}

// liveDirty is a program that writes to one page after the other, at several
// rates.
func liveDirty(ctx context.Context, b *bench) error {
	picture := report.Plot{Name: "dirty", Title: "Silence of a program that writes to its memory", X: "MB/s dirtied", Unit: report.Milliseconds, Joined: true}
	var last *report.Section
	for _, rate := range []int{20, goalDirtyRate, 400} {
		movers, peer, section := b.liveTable(ctx, victim.Config{Megabytes: b.middle(), DirtyMBps: rate})
		last = section
		addSilences(&picture, strconv.Itoa(rate), movers, peer)
		if err := b.flush(); err != nil {
			return err
		}
	}
	last.Plot(picture)
	return nil
}

// middle is the size of sections that have one: 512 MB, or the largest of -sizes
// below that.
func (b *bench) middle() int {
	sizes, err := b.megabytes()
	if err != nil {
		return goalSize
	}
	best := 0
	for _, size := range sizes {
		if size <= goalSize {
			best = max(best, size)
		}
	}
	if best == 0 {
		return sizes[0]
	}
	return best
}

// liveTable measures all strategies over TLS beside the peer, and notes what was
// reached of the goals that hold for the program.
func (b *bench) liveTable(ctx context.Context, conf victim.Config) ([]*mover, *entrant, *report.Section) {
	what := "idle"
	if conf.DirtyMBps > 0 {
		what = fmt.Sprintf("%d MB/s dirtied", conf.DirtyMBps)
	}
	s := b.report.Add(title("Live move, "+what, conf.Megabytes, 0),
		"Silence: the longest time between two looks of the moved program at CLOCK_REALTIME, while it is moved. The peer has its images on a tmpfs and no network.")
	movers, peer := b.movers(move.TLS), b.peerEntrant()
	b.compete(ctx, s, conf, movers, peer)
	liveRows(s, movers, peer)
	if peer == nil {
		return movers, nil, s
	}
	for _, m := range movers {
		ratio := m.silence.Over(peer.silence)
		compared := m.name + ": silence, of the peer's"
		switch {
		case m.order.Strategy == "stop-and-copy" && conf.DirtyMBps == 0:
			s.AtMost(compared, "", ratio, goalStopped)
		case m.isLive() && conf.Megabytes == goalSize && conf.DirtyMBps == 0:
			s.AtMost(compared, "", ratio, goalIdle)
		case m.isLive() && conf.Megabytes == goalSize && conf.DirtyMBps == goalDirtyRate:
			s.AtMost(compared, "", ratio, goalDirty)
		default:
			s.Row("ratio: "+compared, "", ratio)
		}
	}
	return movers, peer, s
}

// liveTransport is TLS beside plain text, in turn.
func liveTransport(ctx context.Context, b *bench) error {
	conf := victim.Config{Megabytes: b.middle()}
	s := b.report.Add(title("Live move, TLS and plain text", conf.Megabytes, 0),
		"Plain text is for addresses of the loopback network only; the hosts were given such addresses on the same bridge.")
	encrypted, plain := b.movers(move.TLS), b.movers(move.Plain)
	var all []*mover
	for i := range encrypted {
		all = append(all, encrypted[i], plain[i])
	}
	b.compete(ctx, s, conf, all, nil)
	liveRows(s, all, nil)
	picture := report.Plot{
		Name: "transport", Title: "Silence over TLS and plain text", Unit: report.Milliseconds,
		Lines: []report.Line{{Name: string(move.TLS)}, {Name: string(move.Plain)}},
	}
	for i, m := range encrypted {
		name, _, _ := strings.Cut(m.name, ",")
		s.Row("ratio TLS / plain: silence of "+name, "", m.silence.Over(plain[i].silence))
		picture.Labels = append(picture.Labels, name)
		for line, of := range []*mover{m, plain[i]} {
			picture.Lines[line].Points = append(picture.Lines[line].Points, of.silence)
		}
	}
	s.Plot(picture)
	return nil
}
