// SPDX-License-Identifier: Apache-2.0

// Package arrive is the destination's side of moves: it answers the
// coordinators of sources, has package host make what they offer, and sees each
// copy to its end, also that of a daemon before it that died.
package arrive

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"sync"
	"time"

	"github.com/io-mig/mig/layers/request/identity"
	"github.com/io-mig/mig/layers/request/journal"
	"github.com/io-mig/mig/layers/request/peer"
	"github.com/io-mig/mig/shim/cni"
	"github.com/io-mig/mig/shim/host"
	"github.com/io-mig/mig/spec/image"
	"github.com/io-mig/mig/spec/network"
	"github.com/io-mig/mig/spec/wire"
)

// Acceptor keeps the connections of a move for the engine that fetches them at
// path. Package incoming's Acceptor is one.
type Acceptor interface {
	Expect(token wire.Token) (path string, forget func(), err error)
}

// Observer is told what happens, for metrics and logs. Its methods do not block.
type Observer interface {
	// Began: a source has said hello; Ended: what became of it.
	Began()
	Ended(outcome Outcome)
	// Copied: bytes of blobs.
	Copied(n int)
}

// Outcome is the end of one move.
type Outcome struct {
	Token, Namespace, Container, Source string
	// Running: the copy runs here.
	Running bool
	// Refused: the container was not taken; nothing was touched.
	Refused bool
	Took    time.Duration
	// Bytes that the engine has received, and how long no copy ran, if known.
	Bytes    uint64
	Downtime time.Duration
	Err      error
}

// Options of a Daemon.
type Options struct {
	Host     *host.Host
	Acceptor Acceptor
	// State is the directory of requests' statuses, request.DefaultDir.
	State string
	// TLS is the directory of this host's certificate; empty: none.
	TLS string
	// Namespaces that containers may come to; empty: all.
	Namespaces []string
	// Snapshotters maps the source's to ours where the names differ.
	Snapshotters map[string]string
	// Tool is the version of mig.
	Tool string
	// Mismatches names why the engine of this host cannot take a stream.
	Mismatches func(*image.Manifest) error
	// Network names why this host cannot give a container its network.
	Network func(r *network.Request, policies map[string]string) ([]peer.Mismatch, error)
	// Guard keeps this host's bridges from believing what CNI makes for a request
	// until its engine has silenced that, or until Unguard.
	Guard   func(r *network.Request, policies map[string]string) error
	Unguard func(name string) error
	// Unplug removes the host's interfaces that were made for a move that is given up.
	Unplug func(move string) error
	// CNI is where this host's networks are configured.
	CNI cni.Dirs
	// Media that this host's engine can read from.
	Media    []string
	Observer Observer
	Log      *slog.Logger
}

// Daemon takes containers in. Several moves at once do not know of each other
// but for what they reserve.
type Daemon struct {
	opts Options
	// journals is the directory in which engines write down how far moves are.
	journals string

	mu sync.Mutex
	// Below: guarded by mu.
	moves map[string]*move // by namespace and id
	// reserved by moves that have not ended.
	reserved host.Resources
	// tidying: what moves have left is being seen to; untidy: more was left since.
	tidying, untidy bool
}

// New makes a daemon.
func New(o Options) *Daemon {
	if o.Observer == nil {
		o.Observer = nobody{}
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	return &Daemon{opts: o, journals: journal.Dir, moves: map[string]*move{}}
}

// Serve has one conversation on a connection, which is authenticated. It returns
// when the move has ended or the daemon ends with ctx: then what has not begun to
// run is undone.
func (d *Daemon) Serve(ctx context.Context, conn net.Conn) {
	m := &move{d: d, from: identity.Name(conn), began: time.Now()}
	s := &peer.Server{
		Self: func() peer.Host { return d.self() },
		New: func(source peer.Host) (peer.Destination, error) {
			m.source = source
			d.opts.Observer.Began()
			return m, nil
		},
	}
	err := s.Serve(ctx, peer.NewConn(conn))
	if m.source == (peer.Host{}) {
		if err != nil && !errors.Is(err, context.Canceled) {
			d.opts.Log.Debug("no conversation", "peer", conn.RemoteAddr(), "error", err)
		}
		return
	}
	m.leave()
	if m.left {
		d.again(ctx)
	}
	o := m.outcome(err)
	d.opts.Observer.Ended(o)
	log := d.opts.Log.With("token", o.Token, "namespace", o.Namespace, "container", o.Container, "source", o.Source, "took", o.Took)
	switch {
	case o.Running:
		log.Info("container has arrived", "bytes", o.Bytes, "downtime", o.Downtime)
	case o.Token == "" && errors.Is(err, peer.ErrAborted): // somebody who has typed this very host, say
		log.Info("a source has left without naming a container", "peer", conn.RemoteAddr())
	case o.Refused:
		log.Warn("container was refused", "error", err)
	default:
		log.Error("move failed", "error", err)
	}
}

func (d *Daemon) self() peer.Host {
	h := d.opts.Host.Self(d.opts.Tool)
	h.Time = time.Now()
	return h
}

// enter takes the container's id for a move, until leave.
func (d *Daemon) enter(m *move) *peer.Mismatch {
	d.mu.Lock()
	defer d.mu.Unlock()
	key := m.offer.Namespace + "/" + m.offer.Container.ID
	if other := d.moves[key]; other != nil {
		return &peer.Mismatch{What: "id", Why: fmt.Sprintf("container %s is on its way here by another move, %s", m.offer.Container.ID, other.offer.Token), Remedy: "wait for its end"}
	}
	for _, other := range d.moves {
		if other.offer.Token == m.offer.Token {
			return &peer.Mismatch{What: "token", Why: fmt.Sprintf("move %s is under way here with another container", m.offer.Token)}
		}
	}
	d.moves[key], m.entered = m, true
	return nil
}

// reserve counts what a move will take.
func (d *Daemon) reserve(m *move, r host.Resources) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.reserved.Memory += r.Memory
	d.reserved.Disk += r.Disk
	m.reserved = r
}

func (d *Daemon) taken() host.Resources {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.reserved
}

func (d *Daemon) leave(m *move) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if !m.entered {
		return
	}
	m.entered = false
	delete(d.moves, m.offer.Namespace+"/"+m.offer.Container.ID)
	d.reserved.Memory -= m.reserved.Memory
	d.reserved.Disk -= m.reserved.Disk
}

// underWay tells whether a token is that of a move of this daemon.
func (d *Daemon) underWay(token string) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, m := range d.moves {
		if m.offer.Token == token {
			return true
		}
	}
	return false
}

func (d *Daemon) allowed(namespace string) bool {
	return len(d.opts.Namespaces) == 0 || slices.Contains(d.opts.Namespaces, namespace)
}

type nobody struct{}

func (nobody) Began()        {}
func (nobody) Ended(Outcome) {}
func (nobody) Copied(int)    {}
