// SPDX-License-Identifier: Apache-2.0

package socket

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/io-mig/mig/layers/kernel/netdrop"
	"github.com/io-mig/mig/layers/kernel/procfs"
	"github.com/io-mig/mig/layers/kernel/target"
	"github.com/io-mig/mig/spec/record"
)

// A connection that its program has closed belongs to nobody: the kernel sends what
// the program had written, and the end of the stream, and forgets it when all of it
// is acknowledged. There is no descriptor by which it could be read, so a copy does
// not have it, and its other end finds it reset (unless nothing is left to send: see
// hush.go). A server that closes after each
// answer has such connections all the time, for a round trip or for as long as a slow
// client needs. They are waited for while the container runs: those that there are,
// as long as nobody is kept waiting for that, then all that still come to their end
// while new connections are held off.
const (
	orphansEvery = 5 * time.Millisecond
	orphansOpen  = 300 * time.Millisecond
	orphansHeld  = 200 * time.Millisecond
)

// orphans are such connections of the container's network namespace.
type orphans struct {
	net *os.File // network namespace; its owner's
	// ports are the local ones of those that count; nil: all do. A host's namespace is
	// full of others' connections.
	ports []uint16
}

func (s *Subsystem) findOrphans(net *os.File, silence netdrop.Silence) (*orphans, error) {
	o := &orphans{net: net}
	_, ofHost, err := networkOf(procfs.Host().Process(s.env.Source.Init))
	if err != nil {
		return nil, err
	}
	if ofHost {
		o.ports = append([]uint16{}, silence.Listeners...)
	}
	return o, nil
}

// networkOf is a process's network namespace. ofHost: it is the engine's, that of the
// host.
func networkOf(p procfs.Task) (net procfs.NSLink, ofHost bool, err error) {
	net, err1 := p.Namespace("net")
	ours, err2 := procfs.Host().Process(os.Getpid()).Namespace("net")
	err = errors.Join(err1, err2)
	return net, err == nil && net == ours, err
}

// list finds those of which something is not acknowledged yet.
func (o *orphans) list() (list []ends, err error) {
	const states = 1<<stateFinWait1 | 1<<stateLastAck | 1<<stateClosing
	err = target.InNamespaceFD(int(o.net.Fd()), "net", func() error {
		return eachInet(states, func(s *inetSocket) {
			if s.inode == 0 && s.unacknowledged > 0 && (o.ports == nil || slices.Contains(o.ports, s.local.Port())) {
				list = append(list, ends{s.local, s.remote})
			}
		})
	})
	return list, err
}

// wait returns when none of which is left (nil: when there is none at all), or after
// most with those that are.
func (o *orphans) wait(ctx context.Context, most time.Duration, which []ends) (left []ends, err error) {
	for end := time.Now().Add(most); ; {
		if left, err = o.list(); err != nil {
			return nil, fmt.Errorf("connections that were closed: %w", err)
		}
		if which != nil {
			left = slices.DeleteFunc(left, func(e ends) bool { return !slices.Contains(which, e) })
		}
		if len(left) == 0 || !time.Now().Before(end) {
			return left, nil
		}
		select {
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		case <-time.After(orphansEvery):
		}
	}
}

// waitForThose waits for those that there are by now, while new ones come.
func (o *orphans) waitForThose(ctx context.Context) error {
	list, err := o.list()
	if err != nil {
		return fmt.Errorf("connections that were closed: %w", err)
	}
	if len(list) > 0 {
		_, err = o.wait(ctx, orphansOpen, list)
	}
	return err
}

// mostNamed bounds how many connections a warning names.
const mostNamed = 8

// lostOrphans warns of those that a copy will not have. Where the other end is in the
// container, too, its socket tells what becomes of it.
func lostOrphans(list []ends) []record.Finding {
	var names []string
	for _, e := range list {
		if !ownAddress(e) {
			names = append(names, fmt.Sprintf("%s to %s", e.local, e.remote))
		}
	}
	n := len(names)
	if n == 0 {
		return nil
	}
	if n > mostNamed {
		names = append(names[:mostNamed], fmt.Sprintf("and %d more", n-mostNamed))
	}
	return []record.Finding{{
		FD: -1, Subsystem: Name, Warning: true,
		What: fmt.Sprintf("%d TCP connections that were closed before everything had arrived (%s)", n, strings.Join(names, ", ")),
		Why:  "nobody has a descriptor of them any more: a copy does not have them, and where something was not sent the other ends find them reset",
	}}
}
