// SPDX-License-Identifier: Apache-2.0

package pipe

import (
	"context"
	"fmt"
	"maps"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/io-mig/mig/layers/kernel/target"
	"github.com/io-mig/mig/layers/kernel/tracer"
	"github.com/io-mig/mig/spec/record"
	"github.com/io-mig/mig/spec/state"
)

// Restart imports.
func (s *Subsystem) Restart(_ context.Context, step record.Step, in *record.Record) (record.Progress, error) {
	var err error
	switch {
	case step.Stage == record.StageReceive:
		err = s.receive(in)
	case step.Stage == record.StageBuild && step.Process == record.Shared:
		err = s.buildAll()
	}
	if err != nil {
		return record.Progress{}, fmt.Errorf("pipe: %w", err)
	}
	return record.Progress{Done: true, Advanced: true}, nil
}

// receive keeps a record.
func (s *Subsystem) receive(r *record.Record) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if r.Process != record.Shared {
		return fmt.Errorf("%s: pipes belong to no process", r.Header)
	}
	switch r.Kind {
	case KindPipe:
		msg, err := decodePipe(r)
		if err != nil {
			return err
		}
		if s.in[r.Entity] != nil {
			return fmt.Errorf("%s: the pipe exists already", r.Header)
		}
		s.in[r.Entity] = &arrival{msg: msg}
		s.entities.Add(1)
		return nil
	case KindContent:
		a, msg, err := decodeContent(r, func(id uint64) *arrival { return s.in[id] })
		if err != nil {
			return err
		}
		n := size(msg)
		if s.held += n; s.held > maxHeld {
			return fmt.Errorf("pipes hold more than %d bytes", maxHeld)
		}
		a.stream = append(a.stream, msg.Stream...)
		a.packets = append(a.packets, msg.Packet...)
		s.bytes.Add(uint64(n))
		return nil
	}
	return fmt.Errorf("%s: kind %d is not known", r.Header, r.Kind)
}

// buildAll makes the pipes, each in the first process that has an end of it.
func (s *Subsystem) buildAll() error {
	for _, t := range s.env.Frame.Tasks() {
		if t.Traced == nil {
			return fmt.Errorf("process %d: %w", t.ID, target.ErrNotStopped)
		}
		if err := s.build(t); err != nil {
			return fmt.Errorf("process %d: %w", t.ID, err)
		}
	}
	return nil
}

// build makes the pipes whose ends the process is the first to have. Ends that
// only others have are put aside for them.
func (s *Subsystem) build(t *target.Task) error {
	for _, key := range slices.Sorted(maps.Keys(s.in)) {
		a := s.in[key]
		if a.builtBy != 0 || !a.wanted(t) {
			continue
		}
		a.builtBy = t.ID
		var err error
		if a.msg.OpenedElsewhere {
			err = a.refill(t)
		} else {
			err = a.make(t, s.env.Frame)
		}
		if err != nil {
			return fmt.Errorf("pipe %d of %d bytes: %w", key, a.msg.Capacity, err)
		}
		a.stream, a.packets = nil, nil
	}
	return nil
}

// wanted: the process has an end.
func (a *arrival) wanted(t *target.Task) bool {
	for _, e := range a.msg.End {
		if len(t.Table.Slots(e.Description)) > 0 {
			return true
		}
	}
	return false
}

// make makes the pipe, fills it and places its ends.
func (a *arrival) make(t *target.Task, frame *target.Frame) error {
	raw, err := a.create(t)
	if err != nil {
		return err
	}
	p := t.Plan()
	p.NarrowFiles()
	a.fill(p, raw[1])
	for _, e := range a.msg.End {
		if !frame.Wanted(e.Description) {
			continue
		}
		if err := a.placeEnd(p, e, &raw); err != nil {
			return err
		}
	}
	if frame.Allowed.AnyUser() && (a.msg.Uid != 0 || a.msg.Gid != 0) {
		p.Quiet(tracer.Syscall(unix.SYS_FCHOWN, uint64(raw[0]), uint64(a.msg.Uid), uint64(a.msg.Gid)))
	}
	if a.msg.Mode != 0 {
		p.Quiet(tracer.Syscall(unix.SYS_FCHMOD, uint64(raw[0]), uint64(a.msg.Mode&0o777)))
	}
	p.Close(raw[0])
	p.Close(raw[1])
	p.WidenFiles()
	return p.Run()
}

// create makes an empty pipe of the wanted capacity.
func (a *arrival) create(t *target.Task) (raw [2]int, err error) {
	p := t.Plan()
	addr, _ := p.Out(8)
	p.NarrowFiles()
	r, w := p.OpenPair(tracer.Syscall(unix.SYS_PIPE2, addr, unix.O_CLOEXEC), addr)
	raw = [2]int{aside(p, t, r), aside(p, t, w)}
	set := -1
	if a.msg.Capacity != 0 {
		// The kernel rounds up; it answers what it is now.
		set = p.Quiet(tracer.Syscall(unix.SYS_FCNTL, uint64(raw[1]), unix.F_SETPIPE_SZ, uint64(a.msg.Capacity)))
	}
	p.WidenFiles()
	if err := p.Run(); err != nil || set < 0 {
		return raw, err
	}
	if _, err := p.Result(set); err != nil {
		return raw, a.enlarge(t, raw[1])
	}
	return raw, nil
}

// enlarge sets the capacity with this process's privileges. A user whose pipes
// have more pages than fs.pipe-user-pages-soft gets small ones, and may not
// enlarge them: pipe(7). Those of the image were made before that.
func (a *arrival) enlarge(t *target.Task, fd int) error {
	own, err := t.Duplicate(fd)
	if err != nil {
		return err
	}
	defer own.Close()
	if _, err := unix.FcntlInt(own.Fd(), unix.F_SETPIPE_SZ, int(a.msg.Capacity)); err != nil {
		return fmt.Errorf("set the capacity of a pipe (fs.pipe-max-size, fs.pipe-user-pages-hard): %w", err)
	}
	return nil
}

// aside moves a descriptor above all that the image wants.
func aside(p *target.Plan, t *target.Task, fd int) int {
	n := p.DupAbove(fd, t.Table.Aside())
	p.Close(fd)
	return n
}

// placeEnd opens an end again, which gives every description flags of its own,
// and places it.
func (a *arrival) placeEnd(p *target.Plan, e *state.PipeEnd, raw *[2]int) error {
	from := raw[0]
	if e.Flags&unix.O_ACCMODE == unix.O_WRONLY {
		from = raw[1]
	}
	name := fmt.Sprint(target.SelfFD, from)
	if a.msg.Abandoned && from == raw[1] {
		name = sink
	}
	path := p.PutString(name)
	cwd := int64(unix.AT_FDCWD)
	fd := p.Open(tracer.Syscall(unix.SYS_OPENAT, uint64(cwd), path, uint64(e.Flags&unix.O_ACCMODE|unix.O_NONBLOCK|unix.O_CLOEXEC)))
	p.Call(tracer.Syscall(unix.SYS_FCNTL, uint64(fd), unix.F_SETFL, uint64(e.Flags&target.StatusFlags)))
	return p.Place(e.Description, fd)
}

// sink takes what is written to an abandoned pipe, whose writers did not fail
// when the checkpoint was made.
const sink = "/dev/null"

// fill writes the content. The descriptor does not block: content that does not
// fit is an error and not a hang.
func (a *arrival) fill(p *target.Plan, fd int) {
	if len(a.stream)+len(a.packets) == 0 {
		return
	}
	flags := unix.O_NONBLOCK
	if len(a.packets) > 0 {
		flags |= unix.O_DIRECT
	}
	p.Call(tracer.Syscall(unix.SYS_FCNTL, uint64(fd), unix.F_SETFL, uint64(flags)))
	for _, b := range a.packets {
		p.Expect(tracer.Syscall(unix.SYS_WRITE, uint64(fd), p.Put(b), uint64(len(b))), int64(len(b)))
	}
	if n := len(a.stream); n > 0 {
		p.Expect(tracer.Syscall(unix.SYS_WRITE, uint64(fd), p.Put(a.stream), uint64(n)), int64(n))
	}
}

// refill puts unread content back into a FIFO or into standard input, which
// the file subsystem has opened. Where somebody has written to it already, a
// FIFO that outlived its container has kept its content; what came first into
// standard input would come last, and is refused.
func (a *arrival) refill(t *target.Task) error {
	fd := -1
	for _, e := range a.msg.End {
		if n, ok := t.Table.Made(e.Description); ok {
			fd = n
		}
	}
	var st unix.Stat_t
	if err := unix.Stat(t.Proc.Path(fmt.Sprintf("fd/%d", fd)), &st); err != nil {
		return err
	}
	if st.Mode&unix.S_IFMT != unix.S_IFIFO {
		return fmt.Errorf("%d unread bytes of standard input have no place: the container was created without a standard input that is a pipe (-i)", len(a.stream))
	}
	p := t.Plan()
	count, buf := p.Out(4)
	p.Call(tracer.Syscall(unix.SYS_IOCTL, uint64(fd), unix.TIOCINQ, count))
	if err := p.Run(); err != nil {
		return err
	}
	if buf[0]|buf[1]|buf[2]|buf[3] != 0 {
		if a.msg.Stdio == 0 {
			return nil
		}
		return fmt.Errorf("standard input was written to before its %d unread bytes could be put back: write when the container runs", len(a.stream))
	}
	p = t.Plan()
	cwd := int64(unix.AT_FDCWD)
	p.NarrowFiles() // the FIFO may be its user's alone
	w := p.Open(tracer.Syscall(unix.SYS_OPENAT, uint64(cwd), p.PutString(fmt.Sprint(target.SelfFD, fd)), unix.O_RDWR|unix.O_NONBLOCK|unix.O_CLOEXEC))
	if a.msg.Capacity != 0 {
		p.Quiet(tracer.Syscall(unix.SYS_FCNTL, uint64(w), unix.F_SETPIPE_SZ, uint64(a.msg.Capacity)))
	}
	p.WidenFiles()
	a.fill(p, w)
	p.Close(w)
	return p.Run()
}
