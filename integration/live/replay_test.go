// SPDX-License-Identifier: Apache-2.0

package live

import (
	"bytes"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/binary"
	"encoding/hex"
	"hash/crc32"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/io-mig/mig/integration/internal/daemon"
)

// A preamble starts each connection in the clear (package spec/wire): 32 bytes, with
// the purpose at 6, the token at 8 and a CRC-32C at 28.
type preamble [32]byte

const (
	control = 1
	data    = 2
	urgent  = 3
	resolve = 4
)

func (p preamble) purpose() byte { return p[6] }

// as is the preamble with another purpose and token.
func (p preamble) as(purpose byte, token []byte) preamble {
	p[6] = purpose
	copy(p[8:24], token)
	binary.LittleEndian.PutUint32(p[28:], crc32.Checksum(p[:28], crc32.MakeTable(crc32.Castagnoli)))
	return p
}

// recorder forwards connections and keeps their preambles, as anybody on the path
// can.
type recorder struct {
	mu sync.Mutex
	// Below: guarded by mu.
	seen map[byte]preamble // by purpose
}

// record listens on the client's host and forwards to another.
func (w *world) record(to string) *recorder {
	w.t.Helper()
	var l net.Listener
	w.must(w.client.InNetwork(func() (err error) {
		l, err = net.Listen("tcp", w.client.IP+":7117")
		return err
	}))
	w.t.Cleanup(func() { l.Close() })
	r := &recorder{seen: map[byte]preamble{}}
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go r.forward(w, c, to)
		}
	}()
	return r
}

func (r *recorder) forward(w *world, c net.Conn, to string) {
	defer c.Close()
	var p preamble
	if _, err := io.ReadFull(c, p[:]); err != nil {
		return
	}
	r.mu.Lock()
	r.seen[p.purpose()] = p
	r.mu.Unlock()
	s, err := w.dial(w.t.Context(), to)
	if err != nil {
		return
	}
	defer s.Close()
	if _, err := s.Write(p[:]); err != nil {
		return
	}
	go func() { _, _ = io.Copy(c, s); c.Close() }()
	_, _ = io.Copy(s, c)
}

// has returns a preamble for a purpose that was recorded.
func (r *recorder) has(purpose byte) (preamble, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	p, ok := r.seen[purpose]
	return p, ok
}

// slowly makes what an engine sends last some seconds.
var slowly = []string{"--bandwidth", "1MB", "--compress", "none"}

// TestReplay: a host of the same authority that is on the path replays what it has
// recorded of a move, and others send anything: while the move runs, afterwards, and
// with the token of no move. migd turns all away and the container is unharmed.
func TestReplay(t *testing.T) {
	w := newWorld(t, daemon.V24)
	const id, other = "counter", "other"
	was := w.startCounter(id)
	w.run(w.alpha, counter(w.alpha.d.Tree.Tool("counter")), other)
	w.mustCerts("host", "gamma", "--ip", w.client.IP)
	address := w.beta.IP + ":7117"
	r := w.record(address)
	// The image goes first; what follows takes eight seconds, and leaves memory behind.
	done := w.alpha.start(append([]string{"--peer", "beta", "--strategy", "post-copy"}, append(slowly, id, w.client.IP)...)...)
	var seen preamble
	waitFor(t, settleWithin, "every kind of connection was recorded", func() bool {
		_, c := r.has(control)
		_, u := r.has(urgent)
		var d bool
		seen, d = r.has(data)
		return c && u && d
	})
	token := bytes.Clone(seen[8:24])
	w.strangers(address)
	w.replay(address, seen, token)
	w.refused(w.alpha, "is under way here with another container", "--token", hex.EncodeToString(token), other, w.beta.IP)
	select {
	case said := <-done:
		t.Fatalf("the move was over before all was tried: %+v, %v", said.report, said.err)
	default:
	}
	if said := <-done; said.err != nil {
		t.Fatalf("the move was harmed: %v", said.err)
	}
	w.same(w.beta, id, was)

	w.replay(address, seen, token)
	w.refused(w.alpha, "to this host already", "--token", hex.EncodeToString(token), other, w.beta.IP)
	_, _ = rand.Read(token)
	w.replay(address, seen, token)
	w.strangers(address)
	w.same(w.beta, id, was)
	if w.alpha.status(other) != "RUNNING" {
		t.Error("the other container does not run")
	}
	w.alpha.d.Remove(other)
	w.one(id, w.beta, w.alpha)
	w.mustMove(w.beta, id, w.alpha.IP)
	w.same(w.alpha, id, was)
}

// replay brings connections with a token for every purpose, as gamma.
func (w *world) replay(address string, p preamble, token []byte) {
	w.t.Helper()
	for _, purpose := range []byte{control, data, urgent, resolve} {
		c := w.gamma(address, p.as(purpose, token))
		if c == nil {
			continue // turned away before TLS
		}
		// A frame of a length that no frame has; a daemon that asks first is not
		// answered.
		_, _ = c.Write(bytes.Repeat([]byte{0xff}, 64))
		w.ends(c, purpose == control || purpose == resolve)
	}
}

// strangers send what is no connection of a move.
func (w *world) strangers(address string) {
	w.t.Helper()
	version := preamble{'M', 'I', 'G', 'P', 9, 0, control}
	for _, b := range [][]byte{
		nil, // it stays silent until the end of the test
		[]byte("GET / HTTP/1.1\r\nHost: beta\r\n\r\n"),
		bytes.Repeat([]byte{0}, 1<<16),
		version[:],
		append(func() []byte { p := preamble{'M', 'I', 'G', 'P', 1}.as(control, nil); return p[:] }(), "and no TLS"...),
	} {
		c, err := w.dial(w.t.Context(), address)
		w.must(err)
		w.t.Cleanup(func() { c.Close() })
		if b == nil {
			continue
		}
		_, _ = c.Write(b)
		w.ends(c, true)
	}
}

// ends waits until the other side closes a connection. Unless it may say why, it
// says nothing.
func (w *world) ends(c net.Conn, mayTalk bool) {
	w.t.Helper()
	defer c.Close()
	_ = c.SetReadDeadline(time.Now().Add(settleWithin))
	b, err := io.ReadAll(c)
	if os.IsTimeout(err) {
		w.t.Error("a stranger's connection stays")
	}
	if len(b) > 0 && !mayTalk {
		w.t.Errorf("a stranger was told %q", b)
	}
}

// gamma connects with a preamble and the certificate of a host that has nothing to
// do with the move; nil if it is not let in.
func (w *world) gamma(address string, p preamble) net.Conn {
	w.t.Helper()
	dir := filepath.Join(w.ca, "hosts", "gamma")
	pair, err := tls.LoadX509KeyPair(filepath.Join(dir, "host.pem"), filepath.Join(dir, "host.key"))
	w.must(err)
	ca, err := os.ReadFile(filepath.Join(dir, "ca.pem"))
	w.must(err)
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(ca)
	c, err := w.dial(w.t.Context(), address)
	w.must(err)
	w.t.Cleanup(func() { c.Close() })
	_ = c.SetDeadline(time.Now().Add(settleWithin))
	if _, err := c.Write(p[:]); err != nil {
		return nil
	}
	secure := tls.Client(c, &tls.Config{MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{pair}, RootCAs: roots, ServerName: strings.Split(address, ":")[0]})
	if err := secure.Handshake(); err != nil {
		if os.IsTimeout(err) {
			w.t.Errorf("the handshake of purpose %d gets no answer", p.purpose())
		}
		return nil
	}
	return secure
}
