// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"slices"

	"github.com/io-mig/mig/integration/bench/move"
	"github.com/io-mig/mig/integration/bench/report"
	"github.com/io-mig/mig/integration/bench/stats"
	"github.com/io-mig/mig/integration/bench/victim"
)

// Goals of bulk transfer: parts of a bare TCP stream over the same path.
const (
	goalPlainStream = 0.80
	goalTLSStream   = 0.60
)

// liveBulk is how fast a large program's memory goes over, beside a bare stream
// of as many bytes right before each round.
func liveBulk(ctx context.Context, b *bench) error {
	sizes, err := b.megabytes()
	if err != nil {
		return err
	}
	conf := victim.Config{Megabytes: slices.Max(sizes)}
	s := b.report.Add(title("Bulk transfer over the bridge", conf.Megabytes, 0),
		"Stop-and-copy, which sends everything at once. By silence: the program's data in the time for which it saw no clock, stop and switch included. While sent: in the time that mig's engine spent in the residual state.")
	plain := &mover{name: "plain", order: move.Order{Strategy: "stop-and-copy", Transport: move.Plain}}
	encrypted := &mover{name: "TLS", order: move.Order{Strategy: "stop-and-copy", Transport: move.TLS}}
	var bare stats.Series
	runs := b.runs
	b.options.runs = 1
	defer func() { b.options.runs = runs }()
	for range runs {
		took, err := b.world.Stream(ctx, int64(conf.Bytes()))
		if err != nil {
			return err
		}
		before := len(plain.silence) + len(encrypted.silence)
		b.compete(ctx, s, conf, []*mover{plain, encrypted}, nil)
		// A round in which a move failed is no comparison.
		if len(plain.silence)+len(encrypted.silence) == before+2 {
			bare.Add(took)
		}
	}
	rate := func(what string, ms stats.Series) { s.Row(what, report.Rate, ms.Rates(conf.Bytes())) }
	rate("a bare TCP stream", bare)
	for _, m := range []*mover{plain, encrypted} {
		rate(m.name+": by silence", m.silence)
		rate(m.name+": while sent", m.residual)
		s.Row(m.name+": silence seen by the program", report.Milliseconds, m.silence)
	}
	s.AtLeast("plain: by silence, of a bare TCP stream", "", bare.Over(plain.silence), goalPlainStream)
	s.AtLeast("TLS: by silence, of a bare TCP stream", "", bare.Over(encrypted.silence), goalTLSStream)
	s.AtLeast("plain: while sent, of a bare TCP stream", "", bare.Over(plain.residual), goalPlainStream)
	s.AtLeast("TLS: while sent, of a bare TCP stream", "", bare.Over(encrypted.residual), goalTLSStream)
	return nil
}
