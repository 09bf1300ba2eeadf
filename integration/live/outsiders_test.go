// SPDX-License-Identifier: Apache-2.0

package live

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"sync/atomic"
	"testing"
	"time"
)

// outsiders are clients of a third host that talk to a counter all the time, each over
// one connection that it keeps: whatever happens to the moves of the counter, they are
// to hear every word of theirs again, as long as it runs somewhere.
type outsiders struct {
	all []*outsider
}

type outsider struct {
	c     net.Conn
	heard atomic.Int64
	// quiet: it says nothing, so that nobody learns by it where its server is.
	quiet atomic.Bool
	// end is the error that has ended it, or nil, when it was closed.
	end    chan error
	closed atomic.Bool
}

// outsideAddress is where a counter on a network serves them.
const outsideAddress = podIP4 + ":7007"

// outsiderPatience is how long one may hear nothing: while the longest cable cut lasts,
// TCP tries again at times that are twice as far apart each, and then as long again.
const outsiderPatience = 2*outForLong + 2*settleWithin

// outsidersOf connects so many clients.
func (w *world) outsidersOf(n int) (o outsiders) {
	w.t.Helper()
	for range n {
		o.all = append(o.all, w.outsider())
	}
	return o
}

// outsider connects one, and has it talk.
func (w *world) outsider() *outsider {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(w.t.Context(), settleWithin)
	defer cancel()
	var c net.Conn
	waitFor(w.t, settleWithin, "a client is served", func() bool {
		var err error
		c, err = w.dial(ctx, outsideAddress)
		return err == nil
	})
	one := &outsider{c: c, end: make(chan error, 1)}
	go one.talk()
	return one
}

// renew replaces the first of them by a new one.
func (w *world) renew(o *outsiders) {
	w.t.Helper()
	if len(o.all) == 0 {
		return
	}
	first := outsiders{all: o.all[:1]}
	if err := first.leave(); err != nil {
		w.t.Errorf("a client: %v", err)
	}
	o.all = append(o.all[1:], w.outsider())
}

// talk says numbers, and some bytes with each, and hears them again.
func (o *outsider) talk() {
	var err error
	defer func() { o.end <- err }()
	said, heard := make([]byte, 3000), make([]byte, 3000)
	for n := uint64(1); ; n++ {
		part := said[:8+n%2993]
		binary.BigEndian.PutUint64(part, n)
		for i := 8; i < len(part); i++ {
			part[i] = byte(n + uint64(i))
		}
		_ = o.c.SetDeadline(time.Now().Add(outsiderPatience))
		if _, err = o.c.Write(part); err == nil {
			_, err = io.ReadFull(o.c, heard[:len(part)])
		}
		if err == nil && !bytes.Equal(part, heard[:len(part)]) {
			err = fmt.Errorf("it hears other bytes than it has said, %d times it heard the same", n-1)
		}
		if err != nil {
			if o.closed.Load() {
				err = nil
			}
			return
		}
		o.heard.Add(1)
		for ok := true; ok; ok = o.quiet.Load() {
			time.Sleep(2 * time.Millisecond)
		}
	}
}

// hush has them say nothing for a while.
func (o *outsiders) hush(quiet bool) {
	for _, one := range o.all {
		one.quiet.Store(quiet)
	}
}

// goOn waits until each has heard some words more, on the connection that it has had
// from the beginning.
func (o *outsiders) goOn(t *testing.T) {
	t.Helper()
	begun := time.Now()
	for i, one := range o.all {
		want := one.heard.Load() + 3
		for one.heard.Load() < want {
			select {
			case err := <-one.end:
				one.end <- err
				t.Errorf("client %d: %v", i, err)
				return
			case <-time.After(5 * time.Millisecond):
			}
			if time.Since(begun) > outsiderPatience {
				t.Errorf("client %d has heard nothing for %s", i, outsiderPatience)
				return
			}
		}
	}
	if took := time.Since(begun); took > time.Second {
		t.Logf("the clients have gone on after %.1f s", took.Seconds())
	}
}

// leave ends them.
func (o *outsiders) leave() error {
	var errs []error
	for _, one := range o.all {
		one.closed.Store(true)
		one.quiet.Store(false)
		errs = append(errs, one.c.Close())
		err := <-one.end
		one.end <- err
		errs = append(errs, err)
	}
	o.all = nil
	return errors.Join(errs...)
}
