// SPDX-License-Identifier: Apache-2.0

package peer

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
)

func frame(t frameType, body []byte) []byte {
	b := []byte{byte(t), 0, 0, 0, 0, 0, 0, 0}
	binary.LittleEndian.PutUint32(b[4:], uint32(len(body)))
	return append(b, body...)
}

func text(t *testing.T, m Message) []byte {
	t.Helper()
	b, err := json.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	return frame(frameMessage, b)
}

var hello = Message{Hello: &Hello{Oldest: 1, Newest: 1, Host: Host{ID: "one"}}}

// TestHostileSources: whatever a source says, the server ends the conversation
// with an error, soon, and undoes what it began.
func TestHostileSources(t *testing.T) {
	mutated := func(f func(o *Offer)) []byte {
		o := offer()
		f(o)
		return text(t, Message{Offer: o})
	}
	other := digest.FromString("other")
	size := int64(len(content))
	for name, says := range map[string][]byte{
		"nothing like a frame":  []byte("GET / HTTP/1.1\r\n\r\n"),
		"an empty frame":        frame(frameMessage, nil),
		"a frame of 4 GB":       {1, 0, 0, 0, 0xff, 0xff, 0xff, 0xff},
		"a chunk of 1 MB":       {2, 0, 0, 0, 0, 0, 0x10, 0},
		"not JSON":              frame(frameMessage, []byte("{")),
		"deep JSON":             frame(frameMessage, bytes.Repeat([]byte("["), 1<<20)),
		"no meaning":            frame(frameMessage, []byte("{}")),
		"two meanings":          frame(frameMessage, []byte(`{"prepare":{},"abort":{}}`)),
		"no hello":              text(t, Message{Prepare: &Prepare{}}),
		"a version below 1":     text(t, Message{Hello: &Hello{Newest: 1}}),
		"a version turned":      text(t, Message{Hello: &Hello{Oldest: 2, Newest: 1}}),
		"a blob before a hello": frame(frameChunk, []byte("x")),
		"no offer":              append(text(t, hello), text(t, Message{Prepare: &Prepare{}})...),
		"an id like a path":     append(text(t, hello), mutated(func(o *Offer) { o.Container.ID = "../../etc" })...),
		"a namespace of dots":   append(text(t, hello), mutated(func(o *Offer) { o.Namespace = ".." })...),
		"a token like a path":   append(text(t, hello), mutated(func(o *Offer) { o.Token = strings.Repeat("/", 32) })...),
		"a digest of no kind":   append(text(t, hello), mutated(func(o *Offer) { o.Container.Image.Blobs[0].Digest = "md5:x" })...),
		"a digest like a path":  append(text(t, hello), mutated(func(o *Offer) { o.Container.Image.Target.Digest = "sha256:../../../x" })...),
		"a negative blob":       append(text(t, hello), mutated(func(o *Offer) { o.Container.Image.Blobs[0].Size = -1 })...),
		"a target of its own":   append(text(t, hello), mutated(func(o *Offer) { o.Container.Image.Target.Digest = other })...),
		"a blob twice":          append(text(t, hello), mutated(func(o *Offer) { i := &o.Container.Image; i.Blobs = append(i.Blobs, i.Blobs[0]) })...),
		"no blobs":              append(text(t, hello), mutated(func(o *Offer) { o.Container.Image.Blobs = nil })...),
		"a label of 8 KB":       append(text(t, hello), mutated(func(o *Offer) { o.Container.Labels = map[string]string{"a": strings.Repeat("x", 8<<10)} })...),
		"a zero byte":           append(text(t, hello), mutated(func(o *Offer) { o.Container.Snapshot.Key = "a\x00b" })...),
		"prepare without blob":  bytes.Join([][]byte{text(t, hello), mutated(func(*Offer) {}), text(t, Message{Prepare: &Prepare{}})}, nil),
		"an unwanted blob":      bytes.Join([][]byte{text(t, hello), mutated(func(*Offer) {}), text(t, Message{Blob: &Blob{Digest: other, Size: 1}})}, nil),
		"a blob of other size":  bytes.Join([][]byte{text(t, hello), mutated(func(*Offer) {}), text(t, Message{Blob: &Blob{Digest: digest.FromBytes(content), Size: 1}})}, nil),
		"a blob from behind":    bytes.Join([][]byte{text(t, hello), mutated(func(*Offer) {}), text(t, Message{Blob: &Blob{Digest: digest.FromBytes(content), Offset: size + 1, Size: size}})}, nil),
		"messages in a blob":    bytes.Join([][]byte{text(t, hello), mutated(func(*Offer) {}), text(t, Message{Blob: &Blob{Digest: digest.FromBytes(content), Size: size}}), text(t, Message{Prepare: &Prepare{}})}, nil),
		"more than the blob": bytes.Join([][]byte{text(t, hello), mutated(func(*Offer) {}), text(t, Message{Blob: &Blob{Digest: digest.FromBytes(content), Offset: size - 1, Size: size}}),
			frame(frameChunk, []byte("xy"))}, nil),
		"an answer": append(text(t, hello), text(t, Message{Answer: &Answer{}})...),
	} {
		t.Run(name, func(t *testing.T) {
			a, b := net.Pipe()
			defer a.Close()
			d := &fake{answer: wanted()}
			s := &Server{Self: func() Host { return Host{ID: "two"} }, New: func(Host) (Destination, error) { return d, nil }}
			served := make(chan error, 1)
			go func() { served <- s.Serve(t.Context(), NewConn(b)) }()
			go func() { _, _ = io.Copy(io.Discard, a) }()
			go func() { _, _ = a.Write(says) }()
			select {
			case err := <-served:
				if err == nil {
					t.Fatal("the server is content")
				}
				if len(d.log) > 0 && d.undone == nil {
					t.Errorf("after %v nothing was undone", d.log)
				}
				for _, did := range d.log {
					if did == "prepare" {
						t.Error("a container was prepared")
					}
				}
			case <-time.After(20 * time.Second):
				t.Fatal("the server waits")
			}
		})
	}
}

// TestHostileDestinations: no answer of a destination gets past the client.
func TestHostileDestinations(t *testing.T) {
	greeting := Message{Hello: &Hello{Oldest: 1, Newest: 1, Host: Host{ID: "two"}}}
	for name, says := range map[string][]byte{
		"no hello":             text(t, Message{End: &End{Running: true}}),
		"nothing like a frame": []byte("HTTP/1.1 400 Bad Request\r\n"),
		"no answer":            append(text(t, greeting), text(t, Message{Prepared: &Prepared{}})...),
		"an end without why":   append(text(t, greeting), text(t, Message{End: &End{}})...),
		"a bad digest":         append(text(t, greeting), frame(frameMessage, []byte(`{"answer":{"wanted":[{"digest":"x"}]}}`))...),
		"a negative offset": append(text(t, greeting), text(t, Message{Answer: &Answer{Wanted: []Wanted{
			{Digest: digest.FromString("x"), Offset: -1}}}})...),
	} {
		t.Run(name, func(t *testing.T) {
			a, b := net.Pipe()
			go func() { _, _ = io.Copy(io.Discard, b) }()
			go func() { _, _ = b.Write(says); b.Close() }()
			c, err := Meet(NewConn(a), Host{ID: "one"})
			if err != nil {
				return
			}
			defer c.Close()
			if _, err := c.Offer(offer()); err == nil {
				t.Error("the client is content")
			}
		})
	}
}

// TestSilence: a peer that says nothing is not waited for for ever.
func TestSilence(t *testing.T) {
	a, b := net.Pipe()
	defer a.Close()
	c := NewConn(b)
	c.patience = 10 * time.Millisecond
	s := &Server{Self: func() Host { return Host{} }, New: func(Host) (Destination, error) { return &fake{}, nil }}
	var timeout net.Error
	if err := s.Serve(context.Background(), c); !errors.As(err, &timeout) || !timeout.Timeout() {
		t.Errorf("the server says %v", err)
	}
}

// FuzzServer: no bytes make the server panic, hang or prepare a container that
// was not offered whole.
func FuzzServer(f *testing.F) {
	seed := func(parts ...Message) {
		var all []byte
		for _, m := range parts {
			b, err := json.Marshal(m)
			if err != nil {
				f.Fatal(err)
			}
			all = append(all, frame(frameMessage, b)...)
		}
		f.Add(all)
	}
	seed(hello)
	seed(hello, Message{Offer: offer()}, Message{Abort: &Abort{Reason: "x"}})
	seed(hello, Message{Offer: offer()}, Message{Blob: &Blob{Digest: digest.FromBytes(content), Offset: 10, Size: int64(len(content))}})
	seed(hello, Message{Offer: offer()}, Message{Prepare: &Prepare{}})
	f.Fuzz(func(t *testing.T, says []byte) {
		a, b := net.Pipe()
		d := &fake{answer: wanted()}
		s := &Server{Self: func() Host { return Host{ID: "two"} }, New: func(Host) (Destination, error) { return d, nil }}
		served := make(chan error, 1)
		go func() { served <- s.Serve(t.Context(), NewConn(b)) }()
		go func() { _, _ = io.Copy(io.Discard, a) }()
		_, _ = a.Write(says)
		a.Close()
		err := <-served
		if err == nil {
			t.Fatal("a copy runs that nobody has moved")
		}
		if len(d.log) > 0 && d.undone == nil {
			t.Fatalf("after %v nothing was undone", d.log)
		}
	})
}
