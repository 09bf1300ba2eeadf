// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
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

// liveBulk is how fast a large program's memory goes over, beside streams of as many
// bytes right before each round: a bare one, which the goals name, and two that take
// them out of memory and put them into new memory as a move has to.
func liveBulk(ctx context.Context, b *bench) error {
	sizes, err := b.megabytes()
	if err != nil {
		return err
	}
	conf := victim.Config{Megabytes: slices.Max(sizes)}
	s := b.report.Add(title("Bulk transfer over the bridge", conf.Megabytes, 0),
		"Stop-and-copy, which sends everything at once. By silence: the program's data in the time for which it saw no clock, stop and switch included. While sent: in the time that mig's engine spent in the residual state. A bare TCP stream sends and receives one buffer again and again, over one connection. From memory into new memory: over a connection for each processor, from memory of one process into memory that another one has just mapped, whose pages have to be made; no checksums, no foreign process.")
	plain := &mover{name: "plain", order: move.Order{Strategy: "stop-and-copy", Transport: move.Plain}}
	encrypted := &mover{name: "TLS", order: move.Order{Strategy: "stop-and-copy", Transport: move.TLS}}
	var bare, plainMemory, encryptedMemory stats.Series
	if err := touchMemory(2 * conf.Bytes()); err != nil { // the streams come first
		return err
	}
	runs := b.runs
	b.options.runs = 1
	defer func() { b.options.runs = runs }()
	for range runs {
		size := int64(conf.Bytes())
		took, err1 := b.world.Stream(ctx, size)
		plainTook, err2 := b.world.MemoryStream(ctx, size, move.Plain)
		encryptedTook, err3 := b.world.MemoryStream(ctx, size, move.TLS)
		if err := errors.Join(err1, err2, err3); err != nil {
			return err
		}
		before := len(plain.silence) + len(encrypted.silence)
		b.compete(ctx, s, conf, []*mover{plain, encrypted}, nil)
		// A round in which a move failed is no comparison.
		if len(plain.silence)+len(encrypted.silence) == before+2 {
			bare.Add(took)
			plainMemory.Add(plainTook)
			encryptedMemory.Add(encryptedTook)
		}
	}
	rate := func(what string, ms stats.Series) { s.Row(what, report.Rate, ms.Rates(conf.Bytes())) }
	rate("a bare TCP stream", bare)
	rate("a TCP stream from memory into new memory", plainMemory)
	rate("a TLS stream from memory into new memory", encryptedMemory)
	for _, m := range []*mover{plain, encrypted} {
		rate(m.name+": by silence", m.silence)
		rate(m.name+": while sent", m.residual)
		s.Row(m.name+": silence seen by the program", report.Milliseconds, m.silence)
	}
	s.AtLeast("plain: by silence, of a bare TCP stream", "", bare.Over(plain.silence), goalPlainStream)
	s.AtLeast("TLS: by silence, of a bare TCP stream", "", bare.Over(encrypted.silence), goalTLSStream)
	s.AtLeast("plain: while sent, of a bare TCP stream", "", bare.Over(plain.residual), goalPlainStream)
	s.AtLeast("TLS: while sent, of a bare TCP stream", "", bare.Over(encrypted.residual), goalTLSStream)
	s.Row("ratio: plain: while sent, of a TCP stream from memory into new memory", "", plainMemory.Over(plain.residual))
	s.Row("ratio: TLS: while sent, of a TLS stream from memory into new memory", "", encryptedMemory.Over(encrypted.residual))
	s.Plot(report.Plot{
		Name: "bulk", Title: "Bulk transfer", Unit: report.Rate,
		Labels: []string{"plain", "TLS"},
		Lines: []report.Line{
			{Name: "bare TCP stream", Points: []stats.Series{bare.Rates(conf.Bytes()), nil}},
			{Name: "memory into new memory", Points: []stats.Series{plainMemory.Rates(conf.Bytes()), encryptedMemory.Rates(conf.Bytes())}},
			{Name: "mig, while sent", Points: []stats.Series{plain.residual.Rates(conf.Bytes()), encrypted.residual.Rates(conf.Bytes())}},
			{Name: "mig, by silence", Points: []stats.Series{plain.silence.Rates(conf.Bytes()), encrypted.silence.Rates(conf.Bytes())}},
		},
	})
	return nil
}
