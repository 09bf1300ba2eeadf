// SPDX-License-Identifier: Apache-2.0

package control

import (
	"context"

	"github.com/io-mig/mig/spec/record"
)

// order gives each record of a stream, in the order of the stream, what it has
// to wait for:
//
//   - one that is exclusive waits for all before it;
//   - one that is concurrent waits for the last exclusive one, and for the last
//     concurrent one with an equal header since then.
//
// Everyone waits only for records that were taken earlier, so nobody waits in
// a circle. It is used under the reader's lock.
type order struct {
	exclusive chan struct{}   // closed when the last exclusive record is done
	since     []chan struct{} // the concurrent records since then, done or not
	last      map[record.Header]chan struct{}
}

func newOrder() *order {
	free := make(chan struct{})
	close(free)
	return &order{exclusive: free, last: map[record.Header]chan struct{}{}}
}

// slot is one record's place in the order.
type slot struct {
	before []chan struct{}
	end    chan struct{}
}

func (o *order) slot(h record.Header, concurrent bool) slot {
	s := slot{end: make(chan struct{})}
	if !concurrent {
		s.before = append(o.since, o.exclusive)
		o.exclusive, o.since = s.end, nil
		clear(o.last)
		return s
	}
	s.before = append(s.before, o.exclusive)
	if l := o.last[h]; l != nil {
		s.before = append(s.before, l)
	}
	o.prune()
	o.since = append(o.since, s.end)
	o.last[h] = s.end
	return s
}

// prune forgets what is done, so that a long run of concurrent records does not
// hold memory for each. It works only now and then: its cost stays constant per
// record.
func (o *order) prune() {
	const often = 256
	if len(o.since) < often {
		return
	}
	kept := o.since[:0]
	for _, c := range o.since {
		if !closed(c) {
			kept = append(kept, c)
		}
	}
	o.since = kept
	for h, c := range o.last {
		if closed(c) {
			delete(o.last, h)
		}
	}
}

func closed(c chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

// wait returns when it is the record's turn. The end of the context comes first.
func (s slot) wait(ctx context.Context) error {
	for _, c := range s.before {
		select {
		case <-c:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	return context.Cause(ctx)
}

// done lets those behind go on.
func (s slot) done() { close(s.end) }
