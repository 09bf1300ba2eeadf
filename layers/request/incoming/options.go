// SPDX-License-Identifier: Apache-2.0

package incoming

import (
	"context"
	"errors"
	"net"
	"time"

	"github.com/io-mig/mig/spec/wire"
)

// Options of an Acceptor.
type Options struct {
	// Dir is where engines find their sockets, for example /run/migd/incoming.
	// It is made with mode 0700, and sockets that an earlier acceptor left are
	// removed.
	Dir string
	// Handle takes a control or resolve connection, before TLS. It runs in a
	// goroutine of its own and should return soon after ctx ends, which Close
	// waits for. The connection is closed when it returns. nil: such connections
	// are closed at once.
	Handle func(ctx context.Context, conn net.Conn, p wire.Preamble)
	// Warn is told of connections that were turned away. May be nil.
	Warn func(error)

	// The limits; 0 means the default.

	// PreambleTimeout is how long a connection may take for its preamble: 5 s.
	PreambleTimeout time.Duration
	// FetchTimeout is how long a connection waits for its engine: 30 s.
	FetchTimeout time.Duration
	// MaxUnknown bounds the connections without a preamble: 256. One more ends
	// the oldest of them, so that silent strangers cannot keep others out.
	MaxUnknown int
	// MaxHandled bounds the calls of Handle at one time: 64.
	MaxHandled int
	// MaxQueued bounds the connections that wait for the engine of one token:
	// wire.MaxConnections and a few.
	MaxQueued int
	// MaxExpected bounds the tokens: 256.
	MaxExpected int
}

func (o Options) withDefaults() Options {
	def := func(n *int, d int) {
		if *n <= 0 {
			*n = d
		}
	}
	def(&o.MaxUnknown, 256)
	def(&o.MaxHandled, 64)
	def(&o.MaxQueued, wire.MaxConnections+8)
	def(&o.MaxExpected, 256)
	if o.PreambleTimeout <= 0 {
		o.PreambleTimeout = 5 * time.Second
	}
	if o.FetchTimeout <= 0 {
		o.FetchTimeout = 30 * time.Second
	}
	if o.Warn == nil {
		o.Warn = func(error) {}
	}
	return o
}

// ErrClosed is returned after Close.
var ErrClosed = errors.New("the acceptor is closed")

// ErrExpected is wrapped where a token is expected already.
var ErrExpected = errors.New("the token is expected already")

// ErrTooMany is wrapped where a limit is reached.
var ErrTooMany = errors.New("too many")
