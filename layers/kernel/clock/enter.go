// SPDX-License-Identifier: Apache-2.0

package clock

import (
	"context"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/io-mig/mig/layers/kernel/target"
	"github.com/io-mig/mig/layers/kernel/tracer"
	"github.com/io-mig/mig/spec/state"
)

// enter gives the frame a time namespace in which its clocks showed m when the host's
// showed then.
func (s *Subsystem) enter(m *state.Clocks, then [2]int64) error {
	f := s.env.Frame
	if f.SharesTime {
		s.jump("the container's spec joins a time namespace")
		return nil
	}
	t := f.Task(target.FirstTask)
	if t == nil || t.Traced == nil {
		return target.ErrNotStopped
	}
	p := t.Plan()
	unshared := p.Quiet(tracer.Syscall(unix.SYS_UNSHARE, unix.CLONE_NEWTIME))
	if err := p.Run(); err != nil {
		return err
	}
	if _, err := p.Result(unshared); err != nil {
		s.jump(fmt.Sprintf("this kernel gives no time namespace (%v)", err))
		return nil
	}
	o, err := to(m, then)
	if err != nil {
		return err
	}
	path := t.Proc.Path("timens_offsets")
	if err := os.WriteFile(path, []byte(o.text()), 0); err != nil {
		return fmt.Errorf("set the offsets of the time namespace to %v: %w", o, err)
	}
	s.mu.Lock()
	s.offset = o
	s.mu.Unlock()
	return join(t)
}

// to finds the offsets with which the clocks show m when the host's show then.
func to(m *state.Clocks, then [2]int64) (*offsets, error) {
	own, err := offsetsOf(self())
	if err != nil {
		return nil, err
	}
	o := &offsets{}
	for i, c := range clocks {
		o[i] = *c.of(m) - (then[i] - own[i])
	}
	return o, nil
}

// join moves the frame into the namespace that its children would have.
func join(t *target.Task) error {
	p := t.Plan()
	fd := p.Open(tracer.Syscall(unix.SYS_OPEN, p.PutString("/proc/self/ns/time_for_children"), unix.O_RDONLY|unix.O_CLOEXEC))
	p.Call(tracer.Syscall(unix.SYS_SETNS, uint64(fd), unix.CLONE_NEWTIME))
	p.Close(fd)
	if err := p.Run(); err != nil {
		return fmt.Errorf("enter the time namespace: %w", err)
	}
	return nil
}

// jump notes that the clocks are the host's.
func (s *Subsystem) jump(why string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.note = "CLOCK_MONOTONIC and CLOCK_BOOTTIME are this host's: " + why
}

// longestWait bounds await: the clocks were begun from a value that travelled
// here, so they can lag behind by as long as that took, which over a slow link or
// between busy hosts is seconds.
const longestWait = 10 * time.Second

// await returns when the clocks show what they did when the container stopped, or
// later. It is asked in the stage join, immediately before the first timer may be
// started: until then most of that time, or all of it, has passed anyway.
func (s *Subsystem) await(ctx context.Context) error {
	s.mu.Lock()
	o, m := s.offset, s.stop
	s.mu.Unlock()
	if o == nil || m == nil {
		return nil
	}
	now, err := hostClocks()
	if err != nil {
		return err
	}
	need, err := to(m, now)
	if err != nil {
		return err
	}
	wait := max(time.Duration(need[0]-o[0]), time.Duration(need[1]-o[1]))
	if wait > longestWait {
		return fmt.Errorf("the container's clocks had gone on for %s when its copy's began: the network or this host stood still at the beginning of the move, and it would have to wait for so long now (try again)", wait.Round(time.Millisecond))
	}
	if wait <= 0 {
		return nil
	}
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(wait):
		return nil
	}
}
