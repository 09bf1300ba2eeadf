// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/io-mig/mig/integration/bench/move"
	"github.com/io-mig/mig/integration/bench/report"
	"github.com/io-mig/mig/integration/bench/stats"
	"github.com/io-mig/mig/integration/internal/traffic"
)

const (
	// goalClients is how long a client may hear nothing, in times of how long the
	// container is stopped in the same move.
	goalClients = 3
	// clientMoves is how often each server is moved, without -runs.
	clientMoves = 10
	// downloadBytes come with so many bytes a second while the server is moved: it
	// lasts for all moves. What is left then comes as fast as it can.
	downloadBytes = 500 << 20
	downloadRate  = 16 << 20
)

// noticed is what the clients of one server have seen of its moves, each of them.
type noticed struct {
	name             string
	silence, stopped stats.Series // milliseconds
	failed, reset    int
}

// liveClients is servers whose clients, on a third host, are at work while they are
// moved there and back.
func liveClients(ctx context.Context, b *bench) (err error) {
	moves := b.clientRuns()
	s := b.report.Add("Clients of a moved container",
		fmt.Sprintf("%d moves of each server there and back, --strategy auto over TLS, after one that is not counted. Silence: the longest time for which one client heard nothing. Stopped: what mig reports of the same move.", moves))
	dir := filepath.Join(b.scope.Dir, "clients")
	keys := filepath.Join(dir, "keys")
	if err := os.MkdirAll(keys, 0o700); err != nil {
		return err
	}
	servers, err := traffic.All(b.tree, keys, downloadBytes, downloadRate)
	if err != nil {
		return err
	}
	w, err := move.NewClients(ctx, b.tree, dir)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, w.Close()) }()
	var all []*noticed
	for _, server := range servers {
		n := &noticed{name: server.Name}
		if err := b.serve(ctx, w, server, n, moves); err != nil && ctx.Err() == nil {
			s.Fail(server.Name, fmt.Errorf("%w\n%s", err, w.Log()))
		}
		n.rows(s)
		all = append(all, n)
	}
	s.Plot(plotOf(all))
	return nil
}

// serve moves one server while its clients work. A move at whose end they had
// stopped does not count; one that they have noticed by more than silence is the last.
func (b *bench) serve(ctx context.Context, w *move.Clients, server traffic.Server, n *noticed, moves int) (err error) {
	defer func() { err = errors.Join(err, w.Remove(context.WithoutCancel(ctx))) }()
	load, err := w.Serve(ctx, server)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, load.Close()) }()
	for tries := 0; len(n.silence) < moves; tries++ {
		if tries > 2*moves+5 {
			return fmt.Errorf("in %d of %d moves the clients had stopped before the end", tries-len(n.silence), tries)
		}
		seen, r, err := b.watch(ctx, w, load)
		if err != nil {
			return fmt.Errorf("move %d: %w", tries, err)
		}
		n.failed, n.reset = n.failed+seen.Failed, n.reset+seen.Reset
		if err := seen.Err(); err != nil {
			return fmt.Errorf("move %d: %w", tries, err)
		}
		if tries == 0 || seen.Until.Before(r.Switched()) {
			continue
		}
		n.silence.Add(seen.Silence)
		n.stopped.Add(r.Downtime())
	}
	return nil
}

// watch is one move that clients look at.
func (b *bench) watch(ctx context.Context, w *move.Clients, load traffic.Load) (traffic.Seen, *move.Report, error) {
	ctx, cancel := context.WithTimeout(ctx, b.timeout)
	defer cancel()
	if err := load.Begin(ctx); err != nil {
		return traffic.Seen{}, nil, err
	}
	r, err := w.Move(ctx)
	if err != nil {
		return traffic.Seen{}, nil, err
	}
	seen, err := load.End()
	return seen, r, err
}

// rows are a server's.
func (n *noticed) rows(s *report.Section) {
	s.Row(n.name+": longest silence of a client", report.Milliseconds, n.silence)
	s.Row(n.name+": container stopped", report.Milliseconds, n.stopped)
	s.AtMost(n.name+": longest silence of a client, of the time for which the container was stopped", "", n.silence.Over(n.stopped), goalClients)
	if len(n.silence) > 0 || n.failed+n.reset > 0 {
		s.AtMost(n.name+": failed requests in all moves", "requests", stats.Series{float64(n.failed)}, 0)
		s.AtMost(n.name+": reset connections in all moves", "connections", stats.Series{float64(n.reset)}, 0)
	}
}

// plotOf shows silences beside the stops.
func plotOf(all []*noticed) report.Plot {
	p := report.Plot{Name: "clients", Title: "Longest silence of a client", Unit: report.Milliseconds}
	silence, stopped := report.Line{Name: "silence of a client"}, report.Line{Name: "container stopped"}
	for _, n := range all {
		p.Labels = append(p.Labels, n.name)
		silence.Points, stopped.Points = append(silence.Points, n.silence), append(stopped.Points, n.stopped)
	}
	p.Lines = []report.Line{silence, stopped}
	return p
}
