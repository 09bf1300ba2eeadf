// SPDX-License-Identifier: Apache-2.0

package pipe

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/proto"

	"github.com/io-mig/mig/spec/record"
	"github.com/io-mig/mig/spec/state"
)

const (
	// maxCapacity of one pipe that an image may ask for: far above what an
	// unprivileged process can (fs.pipe-max-size, 1 MiB by default).
	maxCapacity = 64 << 20
	// maxHeld bounds the contents of all pipes together.
	maxHeld = 256 << 20
	// maxPacket is a page: a write of packet mode fills one buffer of the pipe.
	maxPacket = 4096
)

func decodePipe(r *record.Record) (*state.Pipe, error) {
	msg := &state.Pipe{}
	if err := proto.Unmarshal(r.Payload, msg); err != nil {
		return nil, err
	}
	switch {
	case r.Entity == 0 || r.Entity >= 1<<(64-idShift):
		return nil, errors.New("pipes are numbered from 1")
	case msg.Capacity > maxCapacity:
		return nil, fmt.Errorf("capacity %d is beyond the limit of %d", msg.Capacity, maxCapacity)
	case msg.Stdio > 1 || msg.Stdio == 1 && !msg.OpenedElsewhere:
		return nil, fmt.Errorf("standard stream %d cannot have content", int(msg.Stdio)-1)
	case msg.Mode > 0o7777:
		return nil, fmt.Errorf("mode %#o", msg.Mode)
	case msg.Abandoned && msg.OpenedElsewhere:
		return nil, errors.New("an abandoned pipe with a name")
	case len(msg.End) == 0:
		return nil, errors.New("a pipe without an end")
	}
	seen := map[uint64]bool{}
	for _, e := range msg.End {
		if e.Description == 0 || seen[e.Description] || e.Flags&^endFlags != 0 || e.Flags&unix.O_ACCMODE == unix.O_ACCMODE {
			return nil, fmt.Errorf("end %d with flags %#o", e.Description, e.Flags)
		}
		seen[e.Description] = true
	}
	return msg, nil
}

// decodeContent reads a part; what is there already counts against the limits.
func decodeContent(r *record.Record, of func(uint64) *arrival) (*arrival, *state.PipeContent, error) {
	msg := &state.PipeContent{}
	if err := proto.Unmarshal(r.Payload, msg); err != nil {
		return nil, nil, err
	}
	a := of(msg.Pipe)
	if a == nil || r.Entity>>idShift != msg.Pipe {
		return nil, nil, fmt.Errorf("content of pipe %d, which was not announced", msg.Pipe)
	}
	if len(msg.Stream) > 0 && len(msg.Packet) > 0 {
		return nil, nil, errors.New("content is a stream or packets")
	}
	have := len(a.stream) + len(a.packets)*maxPacket
	if (have+len(msg.Stream)+len(msg.Packet)*maxPacket > int(a.msg.Capacity)) ||
		len(a.stream) > 0 && len(msg.Packet) > 0 || len(a.packets) > 0 && len(msg.Stream) > 0 {
		return nil, nil, fmt.Errorf("pipe %d has more content than its capacity of %d, or of both kinds", msg.Pipe, a.msg.Capacity)
	}
	for _, p := range msg.Packet {
		if len(p) == 0 || len(p) > maxPacket {
			return nil, nil, fmt.Errorf("packet of %d bytes", len(p))
		}
	}
	return a, msg, nil
}
