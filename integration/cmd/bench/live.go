// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/io-mig/mig/integration/bench/driver"
	"github.com/io-mig/mig/integration/bench/move"
	"github.com/io-mig/mig/integration/bench/report"
	"github.com/io-mig/mig/integration/bench/stats"
	"github.com/io-mig/mig/integration/bench/victim"
)

// liveSections are those of -live: moves between two hosts.
var liveSections = []section{
	{name: "idle", run: liveIdle},
	{name: "dirty", run: liveDirty},
	{name: "transport", run: liveTransport},
	{name: "bulk", run: liveBulk},
	{name: "clients", run: liveClients},
	{name: "early", run: liveEarly},
	{name: "processes", run: liveProcesses},
}

// strategies are the ways to move, in the order in which they are measured.
var strategies = []string{"stop-and-copy", "pre-copy", "post-copy", "hybrid", "auto"}

// mover is one way to move a program, and what was measured of it.
type mover struct {
	name  string // for tables
	order move.Order
	// silence is what the program saw of its move, claimed what mig says of it,
	// total the whole command, residual the part of it in which a stopped
	// program's state was sent; in milliseconds.
	silence, claimed, total, residual stats.Series
	sent                              stats.Series // megabytes
	quiet                             stats.Series // silence of the program before its move
	failed                            int
}

// openWorld makes the hosts, and has everyone move a small program once: that
// brings the image over and every program into the page cache.
func (b *bench) openWorld(ctx context.Context) error {
	if b.world != nil {
		return nil
	}
	dir := filepath.Join(b.scope.Dir, "world")
	if err := os.Mkdir(dir, 0o700); err != nil {
		return err
	}
	w, err := move.New(ctx, b.tree, dir, b.program)
	if err != nil {
		return fmt.Errorf("make two hosts: %w", err)
	}
	b.world = w
	for _, t := range []move.Transport{move.TLS, move.Plain} {
		first := &mover{name: "the first move", order: move.Order{Strategy: "stop-and-copy", Transport: t}}
		if err := b.moveOnce(ctx, first, victim.Config{Megabytes: 1}, false); err != nil {
			return fmt.Errorf("%w\n%s", err, w.Log())
		}
	}
	if b.peer == nil {
		return nil
	}
	return b.peerOnce(ctx, &cycles{}, victim.Config{Megabytes: 1}, false)
}

// movers are the wanted strategies over one transport.
func (b *bench) movers(t move.Transport) (all []*mover) {
	for _, s := range strategies {
		if wanted(b.strategies, s) {
			all = append(all, &mover{name: s + ", " + string(t), order: move.Order{Strategy: s, Transport: t}})
		}
	}
	return all
}

// wanted tells whether a name is in a comma-separated list; an empty one has all.
func wanted(list, name string) bool {
	return list == "" || slices.Contains(strings.Split(list, ","), name)
}

// megabytes are those of -sizes.
func (b *bench) megabytes() (sizes []int, err error) {
	for field := range strings.SplitSeq(b.sizes, ",") {
		size, err := strconv.Atoi(field)
		if err != nil || size < 1 {
			return nil, fmt.Errorf("size %q is no number of megabytes", field)
		}
		sizes = append(sizes, size)
	}
	return sizes, nil
}

// compete measures movers and the peer, which may be nil, in turn, so that
// whatever disturbs the machine disturbs all of them.
func (b *bench) compete(ctx context.Context, s *report.Section, conf victim.Config, movers []*mover, peer *entrant) {
	if err := touchMemory(2 * max(1, conf.Processes) * conf.Bytes()); err != nil {
		s.Fail("touch memory", err)
		return
	}
	for round := range b.runs {
		try := func(name string, failed *int, turn func(context.Context) error) {
			if *failed >= maxFailures || ctx.Err() != nil {
				return
			}
			turnCtx, cancel := context.WithTimeout(ctx, b.timeout)
			defer cancel()
			if err := turn(turnCtx); err != nil && ctx.Err() == nil {
				*failed++
				s.Fail(fmt.Sprintf("%s, %d MB, round %d", name, conf.Megabytes, round), err)
			}
		}
		for _, m := range movers {
			try(m.name, &m.failed, func(ctx context.Context) error { return b.moveOnce(ctx, m, conf, true) })
		}
		if peer != nil {
			try(peer.name, &peer.failed, func(ctx context.Context) error {
				return b.peerOnce(ctx, &peer.cycles, conf, true)
			})
		}
	}
}

// moveOnce runs a program on the one host, moves it, has it prove its memory on
// the other and adds what was measured.
func (b *bench) moveOnce(ctx context.Context, m *mover, conf victim.Config, count bool) (err error) {
	b.serial++
	id := "move" + strconv.Itoa(b.serial)
	if err := b.world.Run(ctx, id, conf.Args(driver.ProgramPath)); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, b.world.Remove(context.WithoutCancel(ctx), id)) }()
	f, err := b.attach(ctx, b.world.From, id, conf)
	if err != nil {
		return err
	}
	if err := b.beQuiet(ctx, m, f); err != nil {
		return err
	}
	if err := f.Reset(ctx); err != nil {
		return err
	}
	r, err := b.world.Move(ctx, id, m.order)
	if err != nil {
		return err
	}
	if f, err = b.attach(ctx, b.world.To, id, conf); err != nil {
		return fmt.Errorf("after the move: %w", err)
	}
	seen, err := f.Silence(ctx)
	if err != nil {
		return fmt.Errorf("after the move: %w", err)
	}
	if err := f.Prove(ctx); err != nil {
		return fmt.Errorf("after the move: %w", err)
	}
	if count {
		m.silence.Add(seen)
		m.claimed.Add(r.Downtime())
		m.total.Add(r.Total())
		m.residual.Add(r.Spent("residual"))
		m.sent.Put(float64(r.Bytes) / 1e6)
		return b.keep(m, conf, seen, r)
	}
	return nil
}

// keep appends what mig reported of a move, with its time line, to a file beside
// the results: a line of JSON for each.
func (b *bench) keep(m *mover, conf victim.Config, seen time.Duration, r *move.Report) error {
	line, err := json.Marshal(struct {
		Mover     string          `json:"mover"`
		Megabytes int             `json:"megabytes"`
		DirtyMBps int             `json:"dirty_mbps,omitempty"`
		SilenceMS float64         `json:"silence_ms"`
		Report    json.RawMessage `json:"report"`
	}{m.name, conf.Megabytes, conf.DirtyMBps, float64(seen.Microseconds()) / 1000, r.Raw})
	if err != nil {
		return err
	}
	if err := os.MkdirAll(b.out, 0o755); err != nil {
		return err
	}
	f, err := os.OpenFile(filepath.Join(b.out, "moves.jsonl"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	_, err = f.Write(append(line, '\n'))
	return errors.Join(err, f.Close())
}

// attach finds the program on a host, by the process that the host's containerd
// names, and waits until it is ready.
func (b *bench) attach(ctx context.Context, h *move.Host, id string, conf victim.Config) (victim.Family, error) {
	pid, err := h.FirstPid(ctx, id)
	if err != nil {
		return nil, err
	}
	return victim.AttachAll(ctx, pid, conf)
}

// quietTime is for how long a program is watched before it is moved.
const quietTime = 300 * time.Millisecond

// beQuiet measures what silence a program sees on this machine that nobody
// moves.
func (b *bench) beQuiet(ctx context.Context, m *mover, f victim.Family) error {
	if err := f.Reset(ctx); err != nil {
		return err
	}
	time.Sleep(quietTime)
	seen, err := f.Silence(ctx)
	m.quiet.Add(seen)
	return err
}

// peerOnce is a checkpoint and a restore by runc and CRIU, without a network.
func (b *bench) peerOnce(ctx context.Context, into *cycles, conf victim.Config, count bool) (err error) {
	source, err := b.container(conf)
	if err != nil {
		return err
	}
	defer os.RemoveAll(source.Bundle)
	if err := b.peer.Run(ctx, source); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, b.peer.Remove(context.WithoutCancel(ctx), source)) }()
	v, err := victim.Attach(ctx, source.Pid, conf)
	if err != nil {
		return err
	}
	var one cycles
	err = b.exitAndRestore(ctx, b.peer, source, v, &one, func(*victim.Victim) error { return nil })
	if err == nil && count {
		into.add(&one)
	}
	return err
}

// peerEntrant is the peer, or nil where it cannot be had.
func (b *bench) peerEntrant() *entrant {
	if b.peer == nil {
		return nil
	}
	return &entrant{driver: b.peer, cycles: cycles{name: b.peer.Name()}}
}

// touchMemory makes the machine have so many bytes of memory ready: on a virtual
// machine the first touch of a page can cost more than everything else.
func touchMemory(bytes int) error {
	mem, err := unix.Mmap(-1, 0, bytes, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANON|unix.MAP_POPULATE)
	if err != nil {
		return fmt.Errorf("map %d MB: %w", bytes>>20, err)
	}
	return unix.Munmap(mem)
}

// liveRows are the lines of the movers and the peer.
func liveRows(s *report.Section, movers []*mover, peer *entrant) {
	var quiet stats.Series
	for _, m := range movers {
		quiet = append(quiet, m.quiet...)
	}
	s.Row("silence of a program that is not moved, for 0.3 s", report.Milliseconds, quiet)
	for _, m := range movers {
		s.Row(m.name+": silence seen by the program", report.Milliseconds, m.silence)
		s.Row(m.name+": stopped, as mig reports", report.Milliseconds, m.claimed)
		s.Row(m.name+": mig migrate", report.Milliseconds, m.total)
		s.Row(m.name+": sent", report.Megabytes, m.sent)
	}
	if peer != nil {
		s.Row(peer.name+": silence of checkpoint and restore", report.Milliseconds, peer.silence)
		s.Row(peer.name+": checkpoint + restore", report.Milliseconds, peer.total())
	}
}
