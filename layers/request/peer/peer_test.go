// SPDX-License-Identifier: Apache-2.0

package peer

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/io-mig/mig/layers/request/job"
	"github.com/io-mig/mig/spec/image"
)

// fake is a destination that keeps what it was asked for.
type fake struct {
	answer  Answer
	refuse  error
	prepare error
	end     End
	// forever: Await lasts until it is cancelled.
	forever bool

	log    []string
	blobs  map[digest.Digest][]byte
	undone error
}

func (f *fake) note(s string) { f.log = append(f.log, s) }

func (f *fake) Consider(context.Context, *Offer) (*Answer, error) {
	f.note("consider")
	return &f.answer, f.refuse
}

func (f *fake) Store(_ context.Context, b *Blob, r io.Reader) error {
	f.note("store")
	all, err := io.ReadAll(r)
	if f.blobs == nil {
		f.blobs = map[digest.Digest][]byte{}
	}
	f.blobs[b.Digest] = all
	return err
}

func (f *fake) Prepare(context.Context) (*Prepared, error) {
	f.note("prepare")
	return &Prepared{Pid: 7}, f.prepare
}

func (f *fake) Await(ctx context.Context, report func(job.Progress)) *End {
	f.note("await")
	report(job.Progress{State: "receive"})
	if f.forever {
		<-ctx.Done()
		return &End{Failure: job.FailureOf(context.Cause(ctx))}
	}
	return &f.end
}

func (f *fake) Undo(reason error) error {
	f.note("undo")
	f.undone = reason
	return nil
}

var content = bytes.Repeat([]byte("layer"), 200_000)

func offer() *Offer {
	d := Descriptor{MediaType: "application/vnd.oci.image.index.v1+json", Digest: digest.FromBytes(content), Size: int64(len(content))}
	return &Offer{
		Token: strings.Repeat("0a", 16), Namespace: "default", Medium: "stream", CgroupVersion: 1,
		State: image.Manifest{Tool: "test", Created: "2026-01-01T00:00:00Z", Architecture: "amd64", Kernel: "6.1", Container: "web", PageSize: 4096},
		Container: Container{
			ID: "web", Spec: json.RawMessage(`{}`), SpecType: "types", Runtime: Runtime{Name: "io.mig.v1"},
			Snapshot: Snapshot{Snapshotter: "native", Key: "web"},
			Image:    Image{Name: "docker.io/library/redis:7", Target: d, Blobs: []Content{{Descriptor: d}}},
		},
	}
}

// pair connects a client's Conn with a server for d.
func pair(t *testing.T, ctx context.Context, d *fake) (*Conn, <-chan error) {
	t.Helper()
	return pairAhead(t, ctx, d, 0)
}

// pairAhead is pair with a destination whose clock is ahead.
func pairAhead(t *testing.T, ctx context.Context, d *fake, ahead time.Duration) (*Conn, <-chan error) {
	t.Helper()
	a, b := net.Pipe()
	s := &Server{Self: func() Host { return Host{ID: "two", Name: "beta", Time: time.Now().Add(ahead)} }, New: func(Host) (Destination, error) { return d, nil }}
	served := make(chan error, 1)
	go func() { served <- s.Serve(ctx, NewConn(b)) }()
	c := NewConn(a)
	t.Cleanup(func() { c.Close() })
	return c, served
}

func client(t *testing.T, d *fake) (*Client, <-chan error) {
	t.Helper()
	conn, served := pair(t, t.Context(), d)
	c, err := Meet(conn, Host{ID: "one", Name: "alpha"})
	if err != nil {
		t.Fatal(err)
	}
	return c, served
}

func wanted() Answer {
	return Answer{Wanted: []Wanted{{Digest: digest.FromBytes(content), Offset: 10}}}
}

func put(c *Client) error {
	sent := 0
	b := Blob{Digest: digest.FromBytes(content), Offset: 10, Size: int64(len(content))}
	return c.Put(context.Background(), b, bytes.NewReader(content[10:]), func(n int) { sent += n })
}

// TestSkewedClocks: the difference of the clocks is measured, and hinders nothing.
func TestSkewedClocks(t *testing.T) {
	for _, ahead := range []time.Duration{time.Hour, -time.Hour} {
		d := &fake{answer: wanted(), end: End{Running: true}}
		conn, served := pairAhead(t, t.Context(), d, ahead)
		c, err := Meet(conn, Host{ID: "one", Name: "alpha"})
		if err != nil {
			t.Fatal(err)
		}
		if off := (c.Skew - ahead).Abs(); off > 30*time.Second {
			t.Errorf("a clock that is %s ahead is taken for one that is %s", ahead, c.Skew)
		}
		if _, err := c.Offer(offer()); err != nil {
			t.Fatal(err)
		}
		if err := put(c); err != nil {
			t.Fatal(err)
		}
		if _, err := c.Prepare(); err != nil {
			t.Fatal(err)
		}
		if end, err := c.Wait(func(job.Progress) {}); err != nil || !end.Running {
			t.Errorf("%+v, %v", end, err)
		}
		if err := <-served; err != nil {
			t.Error(err)
		}
	}
}

func TestWholeConversation(t *testing.T) {
	d := &fake{answer: wanted(), end: End{Running: true, Pid: 8}}
	c, served := client(t, d)
	if c.Peer.Name != "beta" {
		t.Errorf("the peer is %q", c.Peer.Name)
	}
	a, err := c.Offer(offer())
	if err != nil || len(a.Wanted) != 1 {
		t.Fatalf("%+v, %v", a, err)
	}
	if err := put(c); err != nil {
		t.Fatal(err)
	}
	if p, err := c.Prepare(); err != nil || p.Pid != 7 {
		t.Fatalf("%+v, %v", p, err)
	}
	var states []string
	end, err := c.Wait(func(p job.Progress) { states = append(states, p.State) })
	if err != nil || !end.Running || end.Pid != 8 {
		t.Fatalf("%+v, %v", end, err)
	}
	if err := <-served; err != nil {
		t.Error(err)
	}
	if got := strings.Join(d.log, " "); got != "consider store prepare await" {
		t.Errorf("the destination was asked to %s", got)
	}
	if !bytes.Equal(d.blobs[digest.FromBytes(content)], content[10:]) {
		t.Error("the blob's bytes differ")
	}
	if len(states) != 1 || states[0] != "receive" {
		t.Errorf("progress: %v", states)
	}
}

func TestEveryMismatchIsNamed(t *testing.T) {
	d := &fake{answer: Answer{Mismatches: []Mismatch{{What: "id", Why: "taken"}, {What: "CPU features", Why: "avx512f", Remedy: "another host"}}}}
	c, served := client(t, d)
	_, err := c.Offer(offer())
	if !IsRefused(err) || !strings.Contains(err.Error(), "id: taken") || !strings.Contains(err.Error(), "CPU features: avx512f (another host)") {
		t.Errorf("the client says %v", err)
	}
	if err := <-served; !IsRefused(err) {
		t.Errorf("the server says %v", err)
	}
	if got := strings.Join(d.log, " "); got != "consider undo" {
		t.Errorf("the destination was asked to %s", got)
	}
}

func TestFailuresCrossWithTheirKind(t *testing.T) {
	d := &fake{prepare: &job.Failure{Kind: job.Unsupported, Text: "no such snapshotter"}}
	c, served := client(t, d)
	if _, err := c.Offer(offer()); err != nil {
		t.Fatal(err)
	}
	_, err := c.Prepare()
	var f *FailedError
	if !errors.As(err, &f) || f.Kind != job.Unsupported || !errors.Is(err, errors.ErrUnsupported) {
		t.Errorf("the client says %v", err)
	}
	<-served
	if d.undone == nil {
		t.Error("nothing was undone")
	}
}

// TestSourceThatIsGone: whenever the source's end closes, what was made is
// undone.
func TestSourceThatIsGone(t *testing.T) {
	for name, until := range map[string]func(c *Client){
		"before the blob": func(c *Client) {},
		"within the blob": func(c *Client) {
			_ = c.conn.Send(Message{Blob: &Blob{Digest: digest.FromBytes(content), Size: int64(len(content))}})
			_ = c.conn.write(frameChunk, content[:100])
		},
		"after the blob": func(c *Client) { _ = put(c) },
		"while it moves": func(c *Client) {
			_ = put(c)
			_, _ = c.Prepare()
			_, _ = c.conn.Receive()
		},
	} {
		t.Run(name, func(t *testing.T) {
			d := &fake{answer: wanted(), forever: true}
			c, served := client(t, d)
			if _, err := c.Offer(offer()); err != nil {
				t.Fatal(err)
			}
			until(c)
			c.Close()
			if err := <-served; !errors.Is(err, ErrAborted) {
				t.Errorf("the server says %v", err)
			}
			if told := new(AbortedError); !errors.Is(d.undone, ErrAborted) || errors.As(d.undone, &told) {
				t.Errorf("undone because of %v", d.undone)
			}
		})
	}
}

func TestAbortWhileItMoves(t *testing.T) {
	d := &fake{forever: true}
	c, served := client(t, d)
	if _, err := c.Offer(offer()); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Prepare(); err != nil {
		t.Fatal(err)
	}
	if err := c.Abort(errors.New("the source has run out of patience")); err != nil {
		t.Fatal(err)
	}
	_, err := c.Wait(func(job.Progress) {})
	if err == nil || !strings.Contains(err.Error(), "run out of patience") {
		t.Errorf("the client says %v", err)
	}
	err = <-served
	if told := new(AbortedError); !errors.Is(err, ErrAborted) || !errors.As(err, &told) {
		t.Errorf("the server says %v", err)
	}
}

// TestDaemonThatEnds: a server whose context ends lets the source go, takes
// nothing any more and says why where it fails.
func TestDaemonThatEnds(t *testing.T) {
	for name, says := range map[string]func(c *Client) error{
		"the source waits": func(c *Client) error { _, err := c.conn.Receive(); return err },
		"an offer comes":   func(c *Client) error { _, err := c.Offer(offer()); return err },
	} {
		t.Run(name, func(t *testing.T) {
			ctx, cancel := context.WithCancel(t.Context())
			d := &fake{}
			conn, served := pair(t, ctx, d)
			c, err := Meet(conn, Host{ID: "one"})
			if err != nil {
				t.Fatal(err)
			}
			cancel()
			if err := says(c); err == nil {
				t.Error("the conversation goes on")
			}
			if err := <-served; !errors.Is(err, ErrEnding) {
				t.Errorf("the server says %v", err)
			}
			if !slices.Equal(d.log, []string{"undo"}) {
				t.Errorf("the destination was asked to %q", d.log)
			}
		})
	}
}

func TestVersions(t *testing.T) {
	for _, v := range []struct {
		mine, theirs [2]int
		want         int
	}{
		{[2]int{1, 1}, [2]int{1, 1}, 1}, {[2]int{2, 3}, [2]int{3, 4}, 3}, {[2]int{3, 4}, [2]int{2, 3}, 3},
		{[2]int{1, 2}, [2]int{3, 4}, 0}, {[2]int{3, 4}, [2]int{1, 2}, 0},
	} {
		a, b := net.Pipe()
		s := &Server{Self: func() Host { return Host{ID: "two", Name: "beta"} },
			New: func(Host) (Destination, error) { return &fake{}, nil }, oldest: v.theirs[0], newest: v.theirs[1]}
		served := make(chan error, 1)
		go func() { served <- s.Serve(t.Context(), NewConn(b)) }()
		conn := NewConn(a)
		_, err := meet(conn, Host{ID: "one", Name: "alpha"}, v.mine[0], v.mine[1])
		if (err == nil) != (v.want > 0) {
			t.Errorf("%v and %v: %v", v.mine, v.theirs, err)
		}
		if got, _ := agree(v.mine[0], v.mine[1], &Hello{Oldest: v.theirs[0], Newest: v.theirs[1]}); got != v.want {
			t.Errorf("%v and %v agree on %d", v.mine, v.theirs, got)
		}
		conn.Close()
		<-served
	}
}
