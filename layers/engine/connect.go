// SPDX-License-Identifier: Apache-2.0

package engine

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/url"
	"runtime"
	"sync"
	"time"

	"github.com/io-mig/mig/layers/medium"
	"github.com/io-mig/mig/layers/medium/stream"
	"github.com/io-mig/mig/layers/request/address"
	"github.com/io-mig/mig/layers/request/beneath"
	"github.com/io-mig/mig/layers/request/identity"
	"github.com/io-mig/mig/layers/request/incoming"
	"github.com/io-mig/mig/layers/request/outgoing"
	"github.com/io-mig/mig/spec/wire"
)

// defaultStreams is the number of data connections: one for each processor that
// can encrypt, up to four.
func defaultStreams() int { return max(1, min(runtime.NumCPU(), 4)) }

// departure is a source's stream with its urgent connection.
type departure struct {
	*stream.Writer
	move   address.Move
	urgent net.Conn // the first one; nil: none is wanted

	stop context.CancelFunc
	work sync.WaitGroup
}

// dialMove makes all connections of a move, side by side.
func dialMove(ctx context.Context, m address.Move, urgent bool) (*departure, error) {
	compress, err := stream.ParseCompression(m.Compress)
	if err != nil {
		return nil, err
	}
	n := m.Streams
	if n == 0 {
		n = defaultStreams()
	}
	conns := make([]net.Conn, n+1)
	errs := make([]error, n+1)
	var work sync.WaitGroup
	for i := range conns {
		if i == n && !urgent {
			break
		}
		work.Go(func() {
			purpose := wire.Data
			if i == n {
				purpose = wire.Urgent
			}
			conns[i], errs[i] = outgoing.Dial(ctx, m, purpose)
		})
	}
	work.Wait()
	if err := errors.Join(errs...); err != nil {
		closeAll(conns)
		return nil, err
	}
	w, err := stream.NewWriter(stream.Options{Token: m.Token, Compress: compress}, conns[:n]...)
	if err != nil {
		closeAll(conns)
		return nil, err
	}
	return &departure{Writer: w, move: m, urgent: conns[n], stop: func() {}}, nil
}

func closeAll(conns []net.Conn) {
	for _, c := range conns {
		if c != nil {
			c.Close()
		}
	}
}

// serve answers pulls until the medium is closed. A connection that breaks is
// made again: the copy waits for what it lacks.
func (d *departure) serve(h stream.PullHandler) {
	if d.urgent == nil {
		return
	}
	ctx, cancel := context.WithCancel(context.Background())
	d.stop = cancel
	conn := d.urgent
	d.work.Go(func() {
		const slowest = 2 * time.Second
		for pause := 50 * time.Millisecond; ; {
			if conn != nil {
				if err := stream.ServePulls(ctx, d.move.Token, conn, h); err != nil && ctx.Err() == nil {
					slog.Warn("serve pulls", "error", err)
				}
				pause = 50 * time.Millisecond
			}
			select {
			case <-ctx.Done():
				return
			case <-time.After(pause):
			}
			pause = min(2*pause, slowest)
			var err error
			if conn, err = outgoing.Dial(ctx, d.move, wire.Urgent); err != nil {
				conn = nil
			}
		}
	})
}

// Close ends the stream, then the urgent connection.
func (d *departure) Close() error {
	err := d.Writer.Close()
	d.stop()
	d.work.Wait()
	if d.urgent != nil {
		d.urgent.Close()
	}
	return err
}

// arrival is a destination's stream with its urgent connection.
type arrival struct {
	*stream.Reader
	puller *stream.Puller
	waiter *incoming.Waiter
	// goodbye is called before the stream is closed, if the copy runs.
	goodbye func()
	stop    context.CancelFunc
	work    sync.WaitGroup
}

// acceptMove waits for the connections of a move.
func acceptMove(ctx context.Context, from address.Incoming) (*arrival, error) {
	secure, err := secureWith(from)
	if err != nil {
		return nil, err
	}
	ctx, timeout := context.WithTimeout(ctx, connectTimeout)
	defer timeout()
	waiter, err := incoming.Dial(ctx, from.Socket)
	if err != nil {
		return nil, err
	}
	live, cancel := context.WithCancel(context.Background())
	a := &arrival{puller: stream.NewPuller(from.Token), waiter: waiter, stop: cancel}
	g := &stream.Gatherer{
		Token: from.Token, Secure: secure, Urgent: a.puller.Attach,
		Warn: func(err error) { slog.Warn("a connection was turned away", "error", err) },
	}
	a.work.Go(func() { a.accept(live, from, g) })
	if a.Reader, err = g.Stream(ctx); err != nil {
		a.end()
		return nil, err
	}
	return a, nil
}

// accept takes connections until the move ends. If the daemon goes away, what
// is connected stays, and new connections come when it is back.
func (a *arrival) accept(ctx context.Context, from address.Incoming, g *stream.Gatherer) {
	const again = time.Second
	w := a.waiter
	for {
		conn, _, err := w.Accept(ctx)
		if err == nil {
			if err := outgoing.Watch(conn); err != nil {
				slog.Warn("connection of a move", "error", err)
			}
			g.Add(ctx, conn)
			continue
		}
		// A connection that the daemon had not passed on has died with it, and
		// its source gives the move up.
		g.Cut(fmt.Errorf("migd, which passes them on, is gone: %w", err))
		w.Close()
		for w = nil; w == nil; {
			select {
			case <-ctx.Done():
				return
			case <-time.After(again):
			}
			if next, err := incoming.Dial(ctx, from.Socket); err == nil {
				w = next
			}
		}
	}
}

// secureWith is how a connection is authenticated.
func secureWith(from address.Incoming) (func(context.Context, net.Conn) (net.Conn, error), error) {
	if from.Insecure {
		return func(_ context.Context, conn net.Conn) (net.Conn, error) { return conn, outgoing.Loopback(conn) }, nil
	}
	config, err := identity.Server(from.TLS)
	if err != nil {
		return nil, err
	}
	return func(ctx context.Context, conn net.Conn) (net.Conn, error) {
		c := tls.Server(beneath.New(conn), config)
		if err := c.HandshakeContext(ctx); err != nil {
			return nil, fmt.Errorf("tls: %w", err)
		}
		if name := identity.Name(c); from.From != "" && name != from.From {
			return nil, fmt.Errorf("it is of the host %q, and the move was agreed with %q", name, from.From)
		}
		return c, nil
	}, nil
}

func (a *arrival) end() {
	a.stop()
	a.waiter.Close()
	a.work.Wait()
	_ = a.puller.Close()
}

// Close ends the stream, then the urgent connection.
func (a *arrival) Close() error {
	if a.goodbye != nil {
		a.goodbye()
	}
	err := a.Reader.Close()
	a.end()
	return err
}

// openDeparture and openArrival make a stream alone, for those who know media by
// their schemes. A move needs more than a medium: see move and receive.
func openDeparture(ctx context.Context, u *url.URL, d medium.Direction) (medium.Medium, error) {
	if d != medium.Write {
		return nil, fmt.Errorf("%s: %w: a container is moved to it", u.Redacted(), medium.ErrDirection)
	}
	m, err := address.ParseMove(u.String())
	if err != nil {
		return nil, err
	}
	return dialMove(ctx, m, false)
}

func openArrival(ctx context.Context, u *url.URL, d medium.Direction) (medium.Medium, error) {
	if d != medium.Read {
		return nil, fmt.Errorf("%s: %w: a container comes from it", u.Redacted(), medium.ErrDirection)
	}
	from, err := address.ParseIncoming(u.String())
	if err != nil {
		return nil, err
	}
	return acceptMove(ctx, from)
}
