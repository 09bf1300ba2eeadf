// SPDX-License-Identifier: Apache-2.0

package traffic

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"time"

	"github.com/io-mig/mig/integration/internal/image"
	"github.com/io-mig/mig/integration/internal/pattern"
	"github.com/io-mig/mig/integration/internal/repo"
)

// TalkPort is where cmd/talk listens.
const TalkPort = 8080

// Talk is the image of cmd/talk.
func Talk(tree repo.Tree) image.Image {
	return image.Image{Name: "mig.test/talk:1", Command: []string{"/talk", fmt.Sprintf(":%d", TalkPort)}, Extra: map[string]string{"/talk": tree.Tool("talk")}}
}

// WebSocket has ten clients whose messages come back one by one.
func WebSocket(tree repo.Tree) Server {
	return Server{Name: "WebSocket", Image: Talk(tree), Port: TalkPort, Work: func(ctx context.Context, c Client, ip string) (Load, error) {
		return Ask(ctx, 10, time.Millisecond, c.upgrade(ip), messages)
	}}
}

// upgrade opens a WebSocket.
func (c Client) upgrade(ip string) func(context.Context) (net.Conn, error) {
	return func(ctx context.Context) (net.Conn, error) {
		conn, err := c.tcp(ip, TalkPort)(ctx)
		if err != nil {
			return nil, err
		}
		if _, err := io.WriteString(conn, "GET /echo HTTP/1.1\r\nHost: pod\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"); err != nil {
			return nil, err
		}
		var head []byte
		for b := make([]byte, 1); !bytes.HasSuffix(head, []byte("\r\n\r\n")); {
			if _, err := io.ReadFull(conn, b); err != nil {
				return nil, err
			}
			head = append(head, b...)
		}
		if !bytes.Contains(head, []byte(" 101 ")) || !bytes.Contains(head, []byte("s3pPLMBiTxaQ9kYGzzhZRbK+xOo=")) { // RFC 6455, section 1.3
			return nil, fmt.Errorf("no WebSocket: %s", head)
		}
		return conn, nil
	}
}

// messages sends one message over a WebSocket and expects it back.
func messages(c net.Conn, r *bufio.Reader, client, n int) error {
	want := fmt.Sprintf("%d-%d", client, n)
	if _, err := c.Write(append([]byte{0x82, 0x80 | byte(len(want)), 0, 0, 0, 0}, want...)); err != nil { // masked by nothing
		return err
	}
	got := make([]byte, 2+len(want))
	if _, err := io.ReadFull(r, got); err != nil {
		return err
	}
	if string(got[2:]) != want || got[0] != 0x82 {
		return fmt.Errorf("%q came back, want %q", got, want)
	}
	return nil
}

// Download has one client with one large answer, of which every byte is compared.
// rate bounds how fast it reads while it is looked at, in bytes a second, so that the
// answer lasts for all moves.
func Download(tree repo.Tree, size int64, rate int) Server {
	return Server{Name: "download", Image: Talk(tree), Port: TalkPort, Work: func(ctx context.Context, c Client, ip string) (Load, error) {
		web := http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
			return c.Dial(ctx, network, address)
		}}}
		ask, err := http.NewRequestWithContext(context.WithoutCancel(ctx), http.MethodGet, fmt.Sprintf("http://%s:%d/stream/%d", ip, TalkPort, size), nil)
		if err != nil {
			return nil, err
		}
		r, err := web.Do(ask)
		if err != nil {
			return nil, err
		}
		d := &download{flow: flow{last: time.Now(), rate: rate}, body: r.Body, size: size, done: make(chan struct{})}
		go d.read()
		return d, nil
	}}
}

type download struct {
	flow
	body io.ReadCloser
	size int64
	done chan struct{}
	// err is why it has ended early; valid when done is closed.
	err error
}

func (d *download) read() {
	defer close(d.done)
	n, err := io.CopyBuffer(io.MultiWriter(&pattern.Checker{}, &d.flow), d.body, make([]byte, 64<<10))
	if err == nil && n != d.size {
		err = fmt.Errorf("%d bytes of %d: %w", n, d.size, io.ErrUnexpectedEOF)
	}
	d.err = err
}

func (d *download) Begin(context.Context) error {
	d.begin()
	return nil
}

// End waits for another megabyte.
func (d *download) End() (seen Seen, err error) {
	d.after(1<<20, d.done)
	select {
	case <-d.done:
		if seen.blame(d.err); d.err == nil {
			return seen, fmt.Errorf("all %d bytes had come before the last move", d.size)
		}
	default:
	}
	seen.Silence, seen.Until = d.end(), time.Now()
	return seen, nil
}

// Close has the rest come.
func (d *download) Close() error {
	d.hurry()
	defer d.body.Close()
	select {
	case <-d.done:
		return d.err
	case <-time.After(2 * time.Minute):
		return fmt.Errorf("download: %d of %d bytes have come", d.all(), d.size)
	}
}
