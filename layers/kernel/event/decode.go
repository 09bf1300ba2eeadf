// SPDX-License-Identifier: Apache-2.0

package event

import (
	"errors"
	"fmt"
	"math"

	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/proto"

	"github.com/io-mig/mig/spec/record"
	"github.com/io-mig/mig/spec/state"
)

const (
	// maxFD is the kernel's own limit, fs.nr_open's default.
	maxFD = 1 << 20
	// maxTime is what a ktime_t holds, in nanoseconds.
	maxTime = math.MaxInt64
	// pollFlagBits of a registration do not say which events are waited for:
	// EPOLLEXCLUSIVE, EPOLLWAKEUP, EPOLLONESHOT, EPOLLET.
	pollFlagBits = 0xf << 28
)

// decode reads and checks a record.
func decode(r *record.Record) (proto.Message, error) {
	if r.Process != record.Shared || r.Entity == 0 {
		return nil, errors.New("descriptions belong to no process and are numbered from 1")
	}
	switch r.Kind {
	case KindCounter:
		msg := &state.EventCounter{}
		if err := unmarshal(r, msg, &msg.Flags); err != nil {
			return nil, err
		}
		if msg.Count == math.MaxUint64 {
			return nil, errors.New("the counter of an eventfd is too large")
		}
		return msg, nil
	case KindTimer:
		msg := &state.EventTimer{}
		if err := unmarshal(r, msg, &msg.Flags); err != nil {
			return nil, err
		}
		return msg, checkTimer(msg)
	case KindSignal:
		msg := &state.EventSignal{}
		return msg, unmarshal(r, msg, &msg.Flags)
	case KindPoll:
		msg := &state.EventPoll{}
		if err := unmarshal(r, msg, &msg.Flags); err != nil {
			return nil, err
		}
		return msg, checkPoll(msg)
	case KindProcess:
		msg := &state.EventProcess{}
		if err := unmarshalFlags(r, msg, &msg.Flags, processFlags); err != nil {
			return nil, err
		}
		return msg, checkProcess(msg)
	case KindFiles:
		msg := &state.EventFiles{}
		if err := unmarshal(r, msg, &msg.Flags); err != nil {
			return nil, err
		}
		return msg, checkFiles(msg)
	case KindGroup:
		msg := &state.EventGroup{}
		if err := unmarshal(r, msg, &msg.Flags); err != nil {
			return nil, err
		}
		return msg, checkGroup(msg)
	}
	return nil, fmt.Errorf("kind %d is not known", r.Kind)
}

func unmarshal(r *record.Record, msg proto.Message, flags *uint32) error {
	return unmarshalFlags(r, msg, flags, eventFlags)
}

func unmarshalFlags(r *record.Record, msg proto.Message, flags *uint32, known uint32) error {
	if err := proto.Unmarshal(r.Payload, msg); err != nil {
		return err
	}
	if *flags&^known != 0 || *flags&unix.O_ACCMODE == unix.O_ACCMODE {
		return fmt.Errorf("flags %#o: only %#o may be set", *flags, known)
	}
	return nil
}

func checkTimer(t *state.EventTimer) error {
	const known = unix.TFD_TIMER_ABSTIME | unix.TFD_TIMER_CANCEL_ON_SET
	switch {
	case !clocks[t.Clock]:
		return fmt.Errorf("clock %d is not known", t.Clock)
	case t.SettimeFlags&^known != 0:
		return fmt.Errorf("timer flags %#x are not known", t.SettimeFlags)
	case t.Remaining > maxTime || t.Interval > maxTime || t.Expiry < 0:
		return fmt.Errorf("timer of %d ns, every %d ns, at %d", t.Remaining, t.Interval, t.Expiry)
	}
	return nil
}

func checkPoll(p *state.EventPoll) error {
	type key struct {
		fd   uint32
		desc uint64
	}
	seen := map[key]bool{}
	for _, t := range p.Target {
		k := key{t.Fd, t.Description}
		if t.Fd >= maxFD || t.Description == 0 || seen[k] {
			return fmt.Errorf("registration of number %d, description %d", t.Fd, t.Description)
		}
		seen[k] = true
	}
	return nil
}
