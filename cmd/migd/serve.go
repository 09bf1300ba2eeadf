// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"github.com/io-mig/mig/layers/engine"
	"github.com/io-mig/mig/layers/request/identity"
	"github.com/io-mig/mig/layers/request/incoming"
	"github.com/io-mig/mig/layers/request/journal"
	"github.com/io-mig/mig/layers/request/outgoing"
	"github.com/io-mig/mig/layers/request/resolve"
	"github.com/io-mig/mig/shim/arrive"
	"github.com/io-mig/mig/shim/depart"
	"github.com/io-mig/mig/shim/host"
	"github.com/io-mig/mig/spec/wire"
)

// handshakeTimeout bounds a TLS handshake.
const handshakeTimeout = 10 * time.Second

// daemon is migd put together.
type daemon struct {
	o        *config
	log      *slog.Logger
	moves    *arrive.Daemon
	acceptor *incoming.Acceptor
	metrics  *metrics
}

// serve runs until ctx ends.
func serve(ctx context.Context, o *config) error {
	log := logger(o.debug)
	lock, err := lockState(o.state)
	if err != nil {
		return err
	}
	defer lock.Close()
	h, err := dial(ctx, o.containerd, log)
	if err != nil {
		return err
	}
	defer h.Close()
	d := &daemon{o: o, log: log, metrics: newMetrics(o.tls)}
	d.acceptor, err = incoming.New(incoming.Options{
		Dir: filepath.Join(o.state, "incoming"), Handle: d.handle,
		Warn: func(err error) { log.Debug("connection", "error", err) },
	})
	if err != nil {
		return err
	}
	defer d.acceptor.Close()
	d.moves = arrive.New(arrive.Options{
		Host: h, Acceptor: d.acceptor, State: o.requests, TLS: o.tls, Namespaces: o.namespaces, Snapshotters: o.snapshotters,
		Tool: engine.Version, Mismatches: engine.Mismatches, Network: engine.ConsiderNetwork, CNI: o.cni, Guard: engine.GuardNetwork, Unguard: engine.UnguardNetwork, Unplug: engine.UnplugNetwork, Media: []string{depart.Medium}, Observer: d.metrics, Log: log,
	})
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", o.listen)
	if err != nil {
		return fmt.Errorf("--listen %s: %w", o.listen, err)
	}
	if o.metrics != "" {
		if err := d.serveMetrics(ctx); err != nil {
			return errors.Join(err, listener.Close())
		}
	}
	go d.moves.Resume(ctx)
	ended := make(chan error, 1)
	go func() { ended <- d.acceptor.Serve(listener) }()
	log.Info("ready", "listen", listener.Addr(), "containerd", o.containerd)
	select {
	case <-ctx.Done():
		log.Info("ends: moves that are not committed are undone")
		return nil
	case err := <-ended:
		return err
	}
}

// containerdPatience is how long a containerd is waited for that is just starting, as at
// the start of a machine, or anew.
const containerdPatience = 10 * time.Second

// dial connects to containerd.
func dial(ctx context.Context, address string, log *slog.Logger) (*host.Host, error) {
	for begun := time.Now(); ; {
		h, err := host.Dial(ctx, address)
		switch {
		case err == nil:
			return h, nil
		case time.Since(begun) > containerdPatience:
			return nil, err
		}
		log.Debug("waiting for containerd", "error", err)
		select {
		case <-ctx.Done():
			return nil, err
		case <-time.After(200 * time.Millisecond):
		}
	}
}

// lockState keeps a second migd away from the sockets of the first.
func lockState(dir string) (*os.File, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("directory of sockets: %w", err)
	}
	f, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		return nil, errors.Join(fmt.Errorf("another migd uses %s (--state names another directory): %w", dir, err), f.Close())
	}
	return f, nil
}

// handle takes a connection that is for the daemon itself.
func (d *daemon) handle(ctx context.Context, conn net.Conn, p wire.Preamble) {
	secure, err := d.secure(ctx, conn)
	if err != nil {
		d.metrics.turnedAway()
		d.log.Warn("connection was turned away", "peer", conn.RemoteAddr(), "error", err)
		return
	}
	switch p.Purpose {
	case wire.Control:
		d.moves.Serve(ctx, secure)
	case wire.Resolve:
		if err := resolve.Serve(ctx, secure, p.Token, journal.Dir); err != nil {
			d.log.Warn("a source that asked about its copy", "peer", conn.RemoteAddr(), "error", err)
		}
	default:
		d.log.Warn("connection for a purpose that is not known", "peer", conn.RemoteAddr(), "purpose", p.Purpose)
	}
}

// secure authenticates the peer.
func (d *daemon) secure(ctx context.Context, conn net.Conn) (net.Conn, error) {
	if err := outgoing.Watch(conn); err != nil {
		return nil, err
	}
	if d.o.insecure {
		return conn, nil
	}
	config, err := identity.Server(d.o.tls)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, handshakeTimeout)
	defer cancel()
	secure := tls.Server(conn, config)
	if err := secure.HandshakeContext(ctx); err != nil {
		return nil, fmt.Errorf("TLS: %w", err)
	}
	return secure, nil
}

// serveMetrics answers Prometheus until ctx ends.
func (d *daemon) serveMetrics(ctx context.Context) error {
	l, err := net.Listen("tcp", d.o.metrics)
	if err != nil {
		return fmt.Errorf("--metrics %s: %w (want [ADDRESS]:PORT)", d.o.metrics, err)
	}
	mux := http.NewServeMux()
	mux.Handle("/metrics", d.metrics.handler())
	s := &http.Server{Handler: mux, ReadHeaderTimeout: 10 * time.Second}
	context.AfterFunc(ctx, func() { s.Close() })
	go func() { _ = s.Serve(l) }() // ends with ctx
	return nil
}
