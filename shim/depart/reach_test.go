// SPDX-License-Identifier: Apache-2.0

package depart

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/io-mig/mig/layers/request/identity"
	"github.com/io-mig/mig/layers/request/identity/identitytest"
	"github.com/io-mig/mig/layers/request/outgoing"
	"github.com/io-mig/mig/spec/wire"
)

// TestUnreached: whatever keeps two hosts from speaking to each other, the error says
// what to do about it.
func TestUnreached(t *testing.T) {
	ca, other := identitytest.New(t), identitytest.New(t)
	here, _ := ca.Host("here")
	there, _ := ca.Host("127.0.0.1")
	named, _ := ca.Host("there")
	stranger, _ := other.Host("127.0.0.1")
	closed, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	closed.Close()
	for _, c := range []struct {
		name, server, tls, address, want string
	}{
		{"nobody listens", "", here, closed.Addr().String(), "is migd running there"},
		{"another authority", stranger, here, "", "make both with one mig certs"},
		{"another name", named, here, "", "by --peer"},
		{"no certificate here", there, filepath.Join(t.TempDir(), "none"), "", "--tls names another directory"},
		{"ours is refused", there, stranger, "", "the log of its migd says why"},
	} {
		t.Run(c.name, func(t *testing.T) {
			o := good()
			o.TLS, o.Destination = c.tls, c.address
			if c.server != "" {
				o.Destination = serve(t, c.server)
			}
			if c.name == "ours is refused" { // and theirs is not
				ca, err := os.ReadFile(filepath.Join(here, identity.CAFile))
				if err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(filepath.Join(stranger, identity.CAFile), ca, 0o600); err != nil {
					t.Fatal(err)
				}
			}
			m := &mover{o: o, token: wire.NewToken()}
			conn, err := outgoing.Dial(t.Context(), o.move(m.token), wire.Control)
			if err == nil {
				defer conn.Close()
				_, err = conn.Read(make([]byte, 1)) // TLS 1.3: the client is done before it is judged
			}
			if err == nil {
				t.Fatal("it was reached")
			}
			got := m.unreached(fmt.Errorf("reach migd: %w", err))
			if !strings.Contains(got.Error(), c.want) || !errors.Is(got, err) {
				t.Errorf("%v, want %q", got, c.want)
			}
			if strings.Contains(got.Error(), "tls: tls:") {
				t.Errorf("it stammers: %v", got)
			}
		})
	}
}

// TestRemedies: what a test cannot have without a network.
func TestRemedies(t *testing.T) {
	o := good()
	for want, err := range map[string]error{
		"give its address instead": &net.DNSError{Err: "no such host", Name: "beta"},
		"is the host up?":          &net.OpError{Op: "dial", Err: os.NewSyscallError("connect", syscall.EHOSTUNREACH)},
		"a clock is wrong":         x509.CertificateInvalidError{Reason: x509.Expired},
		"makes a new one":          fmt.Errorf("tls: %w", identity.ErrRevoked),
		"closed the connection":    io.ErrUnexpectedEOF,
		"":                         errors.New("something else"),
	} {
		if got := o.remedy(fmt.Errorf("reach migd: %w", err)); !strings.Contains(got, want) || want == "" && got != "" {
			t.Errorf("%v: %q, want %q", err, got, want)
		}
	}
}

// serve accepts as migd does, with the certificate in dir.
func serve(t *testing.T, dir string) string {
	t.Helper()
	config, err := identity.Server(dir)
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				if _, err := wire.ReadPreamble(c); err == nil {
					_ = tls.Server(c, config).Handshake()
				}
			}()
		}
	}()
	return l.Addr().String()
}
