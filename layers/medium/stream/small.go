// SPDX-License-Identifier: Apache-2.0

package stream

import (
	"context"

	"github.com/io-mig/mig/spec/record"
	"github.com/io-mig/mig/spec/wire"
)

// Small records are gathered and sent by a goroutine of the stream's: a stopped
// container is some dozens of them, and to each belong a record of TLS, a system
// call, which takes the packet as far as the other host's queue, and somebody who is
// woken there. What has come while one write was under way is the next one.
const (
	// smallRecord is the largest payload that is gathered, in bytes.
	smallRecord = 8 << 10
	// smallRecords is how many bytes wait at most, but for the last record: who pushes
	// faster than the network takes it sends by himself.
	smallRecords = 64 << 10
)

// gather keeps a copy of a record for sendGathered. Called with the lock held: its
// number is above those of all that were sent, and below those of all that will be.
func (w *Writer) gather(r *record.Record) {
	w.small = append(wire.AppendRecord(w.small, w.next, r), r.Payload...)
	w.next++
	select {
	case w.gathered <- struct{}{}:
	default:
	}
}

// takeSmall are the frames that were gathered, for whoever has a connection in hand
// and sends them before anything else: so numbers rise on each connection. Called with
// the lock held.
func (w *Writer) takeSmall() []byte {
	b := w.small
	w.small = nil
	return b
}

// sendGathered sends what was gathered until the stream ends. What cannot be sent has
// broken the stream, which the next call of anybody tells.
func (w *Writer) sendGathered() {
	for {
		select {
		case <-w.gathered:
		case <-w.live.Done():
			return
		}
		i, err := w.take(w.live)
		if err != nil {
			return
		}
		w.mu.Lock()
		b := w.takeSmall()
		w.mu.Unlock()
		if len(b) > 0 {
			err = w.send(context.Background(), i, b)
		}
		w.free <- i
		if err != nil {
			return
		}
	}
}
