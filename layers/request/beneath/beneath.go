// SPDX-License-Identifier: Apache-2.0

// Package beneath is what lies beneath TLS: a connection that reads and writes in
// pieces that suit the network. TLS has records of at most 16 KiB (RFC 8446,
// 5.1), and crypto/tls makes a system call for each; a network card, or a bridge
// between two hosts on one machine, takes 64 KiB at a time, and a system call
// costs as much as the encryption of some kilobytes.
package beneath

import (
	"net"
	"sync"
)

// bufferBytes is what is read and written at once: it stays in the second-level
// cache beside what is encrypted.
const bufferBytes = 128 << 10

// Conn is a connection for crypto/tls. Reads take as much as has come. Writes go
// out at once unless the connection is corked.
type Conn struct {
	net.Conn

	// read is what was read and not asked for yet, of the buffer in. Owned by the
	// one reader that a connection may have.
	in, read []byte

	mu sync.Mutex
	// Below: guarded by mu.
	corked bool
	out    []byte
}

// New makes a connection that owns c.
func New(c net.Conn) *Conn { return &Conn{Conn: c} }

// NetConn is the connection that it was made of.
func (c *Conn) NetConn() net.Conn { return c.Conn }

// Read returns what has come. A large p is filled without a detour.
func (c *Conn) Read(p []byte) (int, error) {
	if len(c.read) == 0 {
		if len(p) >= bufferBytes {
			return c.Conn.Read(p)
		}
		if c.in == nil {
			c.in = make([]byte, bufferBytes)
		}
		n, err := c.Conn.Read(c.in)
		c.read = c.in[:n]
		if n == 0 {
			return 0, err
		}
	}
	n := copy(p, c.read)
	c.read = c.read[n:]
	return n, nil
}

// Write writes p, or keeps a copy while the connection is corked.
func (c *Conn) Write(p []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.corked {
		return c.Conn.Write(p)
	}
	if c.out == nil {
		c.out = make([]byte, 0, bufferBytes)
	}
	for rest := p; len(rest) > 0; {
		if len(c.out) == bufferBytes {
			if err := c.flush(); err != nil {
				return 0, err
			}
		}
		n := min(len(rest), bufferBytes-len(c.out))
		c.out = append(c.out, rest[:n]...)
		rest = rest[n:]
	}
	return len(p), nil
}

// Cork keeps what is written until there is enough for one write, or Uncork.
func (c *Conn) Cork() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.corked = true
}

// Uncork writes out what was kept, and further writes at once.
func (c *Conn) Uncork() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.corked = false
	return c.flush()
}

// flush is called with the lock held. What could not be written is lost: the
// connection is of no use any more.
func (c *Conn) flush() error {
	out := c.out
	c.out = c.out[:0]
	if len(out) == 0 {
		return nil
	}
	_, err := c.Conn.Write(out)
	return err
}
