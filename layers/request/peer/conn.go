// SPDX-License-Identifier: Apache-2.0

package peer

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"time"
)

// Limits of a frame's body in bytes. A message may hold an OCI spec, which has
// at most some hundred kilobytes.
const (
	MaxMessage = 4 << 20
	MaxChunk   = 256 << 10
)

const headerSize = 8

// frameType is the first byte of a frame.
type frameType uint8

const (
	frameMessage frameType = 1
	frameChunk   frameType = 2
)

// ErrProtocol is wrapped by every error about what the peer has sent.
var ErrProtocol = errors.New("the peer breaks the protocol")

// Conn is one end of the conversation. Sends may overlap with receives, and
// messages with each other; receives may not.
type Conn struct {
	net net.Conn
	// patience bounds each read and each write that makes no progress.
	patience time.Duration
	out      sync.Mutex
}

// DefaultPatience is how long one side waits for the other where an answer is
// due or bytes are under way.
const DefaultPatience = 60 * time.Second

// NewConn speaks on a connection, which becomes the Conn's.
func NewConn(c net.Conn) *Conn { return &Conn{net: c, patience: DefaultPatience} }

// Close ends the conversation and every call that waits in it.
func (c *Conn) Close() error { return c.net.Close() }

// Peer is the address of the other side.
func (c *Conn) Peer() string { return c.net.RemoteAddr().String() }

// Send writes one message.
func (c *Conn) Send(m Message) error {
	body, err := json.Marshal(m)
	if err != nil {
		return fmt.Errorf("encode a message: %w", err)
	}
	if len(body) > MaxMessage {
		return fmt.Errorf("a message of %d bytes, the limit is %d", len(body), MaxMessage)
	}
	return c.write(frameMessage, body)
}

// write sends one frame. After an error the connection is of no use.
func (c *Conn) write(t frameType, body []byte) error {
	frame := make([]byte, headerSize, headerSize+len(body))
	frame[0] = byte(t)
	binary.LittleEndian.PutUint32(frame[4:], uint32(len(body)))
	frame = append(frame, body...)
	c.out.Lock()
	defer c.out.Unlock()
	if err := c.net.SetWriteDeadline(time.Now().Add(c.patience)); err != nil {
		return err
	}
	if _, err := c.net.Write(frame); err != nil {
		return fmt.Errorf("send to %s: %w", c.Peer(), err)
	}
	return nil
}

// header reads what starts a frame. wait bounds it; 0 means as long as the
// connection lives.
func (c *Conn) header(wait time.Duration) (frameType, int, error) {
	var deadline time.Time
	if wait > 0 {
		deadline = time.Now().Add(wait)
	}
	if err := c.net.SetReadDeadline(deadline); err != nil {
		return 0, 0, err
	}
	var h [headerSize]byte
	if n, err := io.ReadFull(c.net, h[:]); err != nil {
		if n == 0 {
			return 0, 0, err // io.EOF is the end between two frames
		}
		return 0, 0, fmt.Errorf("after %d bytes of a frame's header: %w", n, err)
	}
	t, n := frameType(h[0]), binary.LittleEndian.Uint32(h[4:])
	limit := uint32(0)
	switch t {
	case frameMessage:
		limit = MaxMessage
	case frameChunk:
		limit = MaxChunk
	}
	if limit == 0 || h[1]|h[2]|h[3] != 0 {
		return 0, 0, fmt.Errorf("%w: % x is no frame: is the peer a mig?", ErrProtocol, h)
	}
	if n == 0 || n > limit {
		return 0, 0, fmt.Errorf("%w: a frame of type %d with %d bytes, allowed are 1 to %d", ErrProtocol, t, n, limit)
	}
	return t, int(n), nil
}

// body fills b, whose length the header has told.
func (c *Conn) body(b []byte) error {
	if err := c.net.SetReadDeadline(time.Now().Add(c.patience)); err != nil {
		return err
	}
	if n, err := io.ReadFull(c.net, b); err != nil {
		return fmt.Errorf("after %d of %d bytes of a frame: %w", n, len(b), noEOF(err))
	}
	return nil
}

// Receive reads one message within the Conn's patience. io.EOF is the end
// between two messages.
func (c *Conn) Receive() (Message, error) { return c.receive(c.patience) }

func (c *Conn) receive(wait time.Duration) (Message, error) {
	var m Message
	t, n, err := c.header(wait)
	if err != nil {
		return m, err
	}
	if t != frameMessage {
		return m, fmt.Errorf("%w: bytes of a blob that was not announced", ErrProtocol)
	}
	b, err := c.grow(n)
	if err != nil {
		return m, err
	}
	if err := json.Unmarshal(b, &m); err != nil {
		return m, fmt.Errorf("%w: a message of %d bytes: %w", ErrProtocol, n, err)
	}
	return m, m.valid()
}

// grow reads n bytes, taking memory only as they come.
func (c *Conn) grow(n int) ([]byte, error) {
	var b []byte
	for len(b) < n {
		more := make([]byte, min(n-len(b), MaxChunk))
		if err := c.body(more); err != nil {
			return nil, err
		}
		b = append(b, more...)
	}
	return b, nil
}

// valid checks that a message is one, and that it is within its limits.
func (m *Message) valid() error {
	n := 0
	for _, set := range []bool{m.Hello != nil, m.Offer != nil, m.Answer != nil, m.Blob != nil, m.Stored != nil,
		m.Prepare != nil, m.Prepared != nil, m.Progress != nil, m.Abort != nil, m.End != nil} {
		if set {
			n++
		}
	}
	var err error
	switch {
	case n != 1:
		// One of a later version is ignored by nobody: versions were agreed on.
		return fmt.Errorf("%w: a message with %d meanings", ErrProtocol, n)
	case m.Hello != nil:
		err = m.Hello.valid()
	case m.Offer != nil:
		err = m.Offer.Valid()
	case m.Answer != nil:
		err = m.Answer.valid()
	case m.Blob != nil:
		err = m.Blob.valid()
	case m.Stored != nil:
		err = m.Stored.Digest.Validate()
	}
	if err != nil {
		return fmt.Errorf("%w: %w", ErrProtocol, err)
	}
	return nil
}

func noEOF(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}
