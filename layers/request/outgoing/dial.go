// SPDX-License-Identifier: Apache-2.0

// Package outgoing makes the connections of moves that leave this host: TCP, the
// preamble in the clear, then TLS.
package outgoing

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"time"

	"golang.org/x/sys/unix"

	"github.com/io-mig/mig/layers/request/address"
	"github.com/io-mig/mig/layers/request/beneath"
	"github.com/io-mig/mig/layers/request/identity"
	"github.com/io-mig/mig/spec/wire"
)

// dialTimeout bounds one connection with its handshake. The other end of a
// connection for data is an engine that may just be starting.
const dialTimeout = 30 * time.Second

// Dial makes one connection of a move. Errors name the peer and the step.
func Dial(ctx context.Context, m address.Move, p wire.Purpose) (net.Conn, error) {
	conn, err := dial(ctx, m, p)
	if err != nil {
		return nil, fmt.Errorf("%s connection to %s: %w", p, m.Host, err)
	}
	return conn, nil
}

func dial(ctx context.Context, m address.Move, p wire.Purpose) (_ net.Conn, err error) {
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	var config *tls.Config
	if !m.Insecure {
		if m.TLS == "" {
			return nil, errors.New("no directory with this host's certificate is known: give tls=DIRECTORY")
		}
		if config, err = identity.Client(m.TLS, m.PeerName()); err != nil {
			return nil, err
		}
	}
	var d net.Dialer
	conn, err := d.DialContext(ctx, "tcp", m.Host)
	if err != nil {
		return nil, err
	}
	stop := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })
	defer func() {
		if err == nil && !stop() {
			err = context.Cause(ctx)
		}
		if err != nil {
			conn.Close()
		}
	}()
	if err := Watch(conn); err != nil {
		return nil, err
	}
	if config == nil {
		if err := Loopback(conn); err != nil {
			return nil, err
		}
	}
	if _, err := conn.Write(wire.Preamble{Purpose: p, Token: m.Token}.Append(nil)); err != nil {
		return nil, fmt.Errorf("preamble: %w", err)
	}
	if config == nil {
		return conn, nil
	}
	secured := tls.Client(beneath.New(conn), config)
	if err := secured.HandshakeContext(ctx); err != nil {
		return nil, fmt.Errorf("TLS handshake: %w", err)
	}
	return secured, nil
}

// Loopback refuses plain text with another host.
func Loopback(conn net.Conn) error {
	if a, ok := conn.RemoteAddr().(*net.TCPAddr); ok && a.IP.IsLoopback() {
		return nil
	}
	return fmt.Errorf("plain text (insecure) is for tests on the loopback interface, not for %s: make certificates with mig certs", conn.RemoteAddr())
}

// silence is how long a peer may acknowledge nothing, of data or of probes,
// before the connection counts as cut: without it, a host that has gone away
// would be noticed after a quarter of an hour.
const silence = 15 * time.Second

// Watch has the kernel notice that the peer's host is gone: keep-alive probes
// and TCP_USER_TIMEOUT (tcp(7)). Other connections are left as they are.
func Watch(conn net.Conn) error {
	t, ok := conn.(*net.TCPConn)
	if !ok {
		return nil
	}
	if err := t.SetKeepAliveConfig(net.KeepAliveConfig{Enable: true, Idle: silence / 3, Interval: silence / 3, Count: 2}); err != nil {
		return err
	}
	raw, err := t.SyscallConn()
	if err != nil {
		return err
	}
	cerr := raw.Control(func(fd uintptr) {
		err = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, int(silence.Milliseconds()))
	})
	return errors.Join(cerr, err)
}
