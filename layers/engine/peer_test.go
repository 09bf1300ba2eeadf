// SPDX-License-Identifier: Apache-2.0

package engine

import (
	"context"
	"errors"
	"io"
	"net"
	"testing"
	"time"

	"github.com/io-mig/mig/layers/kernel"
	"github.com/io-mig/mig/layers/medium/stream"
	"github.com/io-mig/mig/spec/record"
	"github.com/io-mig/mig/spec/wire"
)

// lazy is a subsystem of which a page is left behind.
type lazy struct {
	peer *peer // of the copy
	got  string
}

func (l *lazy) Name() string { return "lazy" }
func (l *lazy) Checkpoint(context.Context, record.Step, record.Sink) (record.Progress, error) {
	return record.Progress{Done: true}, nil
}
func (l *lazy) Restart(context.Context, record.Step, *record.Record) (record.Progress, error) {
	return record.Progress{Done: true}, nil
}
func (l *lazy) Fault(context.Context, record.Fault) error { return errors.ErrUnsupported }
func (l *lazy) Status() record.Status                     { return record.Status{} }
func (l *lazy) Dump(io.Writer) error                      { return nil }

func (l *lazy) Pull(_ context.Context, want record.Pull) (*record.Record, func(), error) {
	return &record.Record{Header: record.Header{Subsystem: "lazy", Process: want.Process, Entity: want.Entity, Kind: 1}, Payload: []byte("page")}, nil, nil
}

func (l *lazy) Fill(ctx context.Context) error {
	r, release, err := l.peer.Pull(ctx, record.Pull{Subsystem: "lazy", Process: 1, Entity: 7})
	if err != nil {
		return err
	}
	defer release()
	l.got = string(r.Payload)
	return r.Verify()
}

// talker is a stream.Peer that carries nothing.
type talker struct{ stream.Peer }

func (talker) Handle(string, stream.Handler) {}

// TestFetchedByPulls: a copy whose stream has broken fetches the rest, and the
// source, which waits for that, learns of it; also if the word is lost.
func TestFetchedByPulls(t *testing.T) {
	token := wire.NewToken()
	source, copied := &peer{}, &peer{}
	puller := stream.NewPuller(token)
	sub := &lazy{peer: copied}
	source.bind(talker{}, nil, []kernel.Subsystem{&lazy{}})
	copied.bind(talker{}, puller, []kernel.Subsystem{sub})
	a, b := net.Pipe()
	served := make(chan error, 1)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	go func() { served <- stream.ServePulls(ctx, token, a, source.pulled) }()
	if _, err := stream.ReadGreeting(b); err != nil {
		t.Fatal(err)
	}
	puller.Attach(b)
	drained := make(chan error, 1)
	go func() {
		drained <- source.drain(t.Context(), func(context.Context) (bool, error) { return false, errors.New("nobody answers") })
	}()
	if err := copied.fill(t.Context()); err != nil || sub.got != "page" {
		t.Errorf("fill: %q, %v", sub.got, err)
	}
	select {
	case err := <-drained:
		t.Errorf("the source does not wait: %v", err)
	default:
	}
	copied.tellWhole()
	copied.tellWhole() // an answer was lost
	if err := <-drained; err != nil {
		t.Error(err)
	}
	if _, _, err := copied.Pull(t.Context(), record.Pull{Subsystem: "cpu"}); err == nil {
		t.Error("a subsystem that gives nothing gave something")
	}
	cancel()
	<-served
	_ = puller.Close()

	alone := &peer{}
	alone.bind(talker{}, nil, nil)
	if err := alone.fill(t.Context()); err == nil {
		t.Error("nobody has filled anything")
	}
	if err := alone.drain(t.Context(), func(context.Context) (bool, error) { return true, nil }); err != nil {
		t.Errorf("the journal says that all is there: %v", err)
	}
	ended, cancel := context.WithTimeout(t.Context(), time.Millisecond)
	defer cancel()
	if err := (&peer{whole: make(chan struct{})}).drain(ended, nil); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("its time ran out: %v", err)
	}
}
