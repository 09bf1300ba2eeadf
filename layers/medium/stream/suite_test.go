// SPDX-License-Identifier: Apache-2.0

package stream

import (
	"fmt"
	"net"
	"testing"

	"github.com/io-mig/mig/layers/medium"
	"github.com/io-mig/mig/layers/medium/mediumtest"
	"github.com/io-mig/mig/spec/wire"
)

// dial makes n connections over the loopback; the ends are in different orders.
func dial(t testing.TB, n int) (a, b []net.Conn) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	for range n {
		c, err := net.Dial("tcp", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		s, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close(); s.Close() })
		a, b = append(a, c), append([]net.Conn{s}, b...)
	}
	return a, b
}

func TestSuite(t *testing.T) {
	for _, n := range []int{1, 3} {
		t.Run(fmt.Sprint(n), func(t *testing.T) {
			mediumtest.Run(t, func(t *testing.T) *mediumtest.Target {
				a, b := dial(t, n)
				return &mediumtest.Target{
					Writer: func() (medium.Medium, error) { return NewWriter(Options{}, a...) },
					Reader: func() (medium.Medium, error) { return NewReader(Options{}, b...) },
					Live:   true, Bound: wire.Window,
				}
			})
		})
	}
}
