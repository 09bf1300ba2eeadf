// SPDX-License-Identifier: Apache-2.0

package enginepipe

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/io-mig/mig/layers/control"
	"github.com/io-mig/mig/layers/request/job"
)

// FD is the descriptor on which an engine process finds its supervisor.
const FD = 3

const (
	// jobTimeout is how long the engine waits for its job.
	jobTimeout = 30 * time.Second
	// sendTimeout is how long one side waits for the other to read.
	sendTimeout = 10 * time.Second
	// AbandonAfter is how long a job may take to end after its cancellation,
	// before the engine gives up on it: longer than control's undoing takes. Of one that
	// cannot be undone any more (job.Decider) it is how long nothing may have moved.
	AbandonAfter = 45 * time.Second
)

// ErrAbandoned is returned by Serve when a cancelled job did not end. The engine
// process must exit at once; its death lets the tasks go.
var ErrAbandoned = errors.New("the job did not end after it was cancelled")

// Work does a job. The files are those of Job.Files, in their order, and are
// Work's. Its context ends with a cancel message and with the supervisor's
// death (context.Cause tells them apart).
type Work func(ctx context.Context, j *job.Job, files []*os.File, r job.Reporter) error

// ErrSupervisorGone is the cause of the end of a job's context whose supervisor
// has died.
var ErrSupervisorGone = fmt.Errorf("the supervisor of this engine has died: %w", context.Canceled)

// Serve is an engine process's life: it reads the job from fd, does it, and
// reports. It returns nil when the end was told, whatever the job's outcome was.
// After any error the process must exit.
//
// It ignores SIGPIPE: standard output and error lead to the supervisor, whose
// death must not kill the engine in the middle of its undoing.
func Serve(fd int, work Work) error {
	signal.Ignore(unix.SIGPIPE)
	unix.CloseOnExec(fd)
	conn, err := NewConn(os.NewFile(uintptr(fd), "supervisor"))
	if err != nil {
		return err
	}
	defer conn.Close()
	return ServeConn(conn, work)
}

// ServeConn is Serve on a Conn, which stays the caller's.
func ServeConn(conn *Conn, work Work) error { return serve(conn, work, usual) }

func serve(conn *Conn, work Work, p patience) error {
	j, files, err := receiveJob(conn)
	if err != nil {
		return errors.Join(err, conn.Send(Message{End: &End{Failure: job.FailureOf(err)}}, sendTimeout))
	}
	ctx, cancel := context.WithCancelCause(context.Background())
	defer cancel(nil)
	rep := startReporter(conn)
	go listen(conn, rep, cancel)

	ended := make(chan error, 1)
	go func() { ended <- guarded(ctx, j, files, rep, work) }()
	select {
	case err = <-ended:
	case <-ctx.Done():
		err = lastly(ctx, conn, j, ended, rep, p)
	}
	last := rep.stop()
	sent := conn.Send(Message{End: &End{Failure: job.FailureOf(err), Last: last}}, sendTimeout)
	if errors.Is(err, ErrAbandoned) {
		return errors.Join(err, sent)
	}
	return sent
}

func receiveJob(conn *Conn) (*job.Job, []*os.File, error) {
	if err := conn.sock.SetReadDeadline(time.Now().Add(jobTimeout)); err != nil {
		return nil, nil, err
	}
	m, files, err := conn.Receive()
	switch {
	case err != nil:
		return nil, nil, fmt.Errorf("receive the job: %w", err)
	case m.Job == nil:
		err = errors.New("the supervisor's first message is not a job")
	case m.Build != Build:
		err = fmt.Errorf("this engine, %s, is of build %q, and its shim of build %q: install both of one build", os.Args[0], Build, m.Build)
	case len(m.Job.Files) != len(files):
		err = fmt.Errorf("the job names %d descriptors, %d came with it", len(m.Job.Files), len(files))
	default:
		err = m.Job.Valid()
	}
	if err == nil {
		err = conn.sock.SetReadDeadline(time.Time{})
	}
	if err != nil {
		closeAll(files)
		return nil, nil, err
	}
	return m.Job, files, nil
}

// listen cancels the job on a cancel message, and on anything that means that
// nobody supervises us any more.
func listen(conn *Conn, rep *reporter, cancel context.CancelCauseFunc) {
	for {
		m, files, err := conn.Receive()
		closeAll(files)
		switch {
		case errors.Is(err, io.EOF):
			cancel(ErrSupervisorGone)
			return
		case err != nil:
			cancel(fmt.Errorf("%w: %w", ErrSupervisorGone, err))
			return
		case m.Cancel:
			cancel(context.Canceled)
		case m.Quiesced != nil:
			select {
			case rep.quiesced <- m.Quiesced.Failure:
			default: // nobody has asked
			}
		}
	}
}

func guarded(ctx context.Context, j *job.Job, files []*os.File, r job.Reporter, work Work) (err error) {
	defer func() {
		if v := recover(); v != nil {
			err = &control.PanicError{Value: v, Stack: debug.Stack()}
		}
	}()
	return work(ctx, j, files, r)
}

// Keep is job.Keeper's.
func (r *reporter) Keep(f *os.File) (drop func() error, err error) {
	n := r.kept.Add(1)
	if err := r.conn.Send(Message{Keep: n}, sendTimeout, f); err != nil {
		return nil, err
	}
	return func() error { return r.conn.Send(Message{Drop: n}, sendTimeout) }, nil
}

// Supervised is job.Supervised's.
func (r *reporter) Supervised() error {
	if r.conn.Over() {
		return ErrSupervisorGone
	}
	return nil
}

// Decided is job.Decider's.
func (r *reporter) Decided(moved func() uint64) {
	r.moved.Store(&moved)
	// A supervisor that is gone notices nothing any more.
	_ = r.conn.Send(Message{Decided: true}, sendTimeout)
}

// Leave is job.Keeper's.
func (r *reporter) Leave(f *os.File, d time.Duration) error {
	return r.conn.Send(Message{Leave: d}, sendTimeout, f)
}

// Quiesce is job.Quiescer's.
func (r *reporter) Quiesce(ctx context.Context) error {
	if err := r.conn.Send(Message{Quiesce: true}, sendTimeout); err != nil {
		return err
	}
	select {
	case f := <-r.quiesced:
		if f != nil {
			return f
		}
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// Wake is job.Quiescer's.
func (r *reporter) Wake(reason string) error {
	return r.conn.Send(Message{Wake: &Wake{Reason: reason}}, sendTimeout)
}

// reporter sends the latest progress from a goroutine of its own, so that a
// supervisor that does not read cannot hold up the job.
type reporter struct {
	conn     *Conn
	quiesced chan *job.Failure
	kept     atomic.Uint64
	moved    atomic.Pointer[func() uint64] // nil: the job can be undone
	mu       sync.Mutex
	latest   job.Progress
	fresh    chan struct{}
	quit     chan struct{}
}

func startReporter(conn *Conn) *reporter {
	r := &reporter{conn: conn, quiesced: make(chan *job.Failure, 1), fresh: make(chan struct{}, 1), quit: make(chan struct{})}
	go func() {
		for {
			select {
			case <-r.quit:
				return
			case <-r.fresh:
			}
			p := r.get()
			if conn.Send(Message{Progress: &p}, sendTimeout) != nil {
				return // the listener notices, too
			}
		}
	}()
	return r
}

func (r *reporter) get() job.Progress {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.latest
}

// Report replaces what was not sent yet.
func (r *reporter) Report(p job.Progress) {
	r.mu.Lock()
	r.latest = p.Bounded()
	r.mu.Unlock()
	select {
	case r.fresh <- struct{}{}:
	default:
	}
}

func (r *reporter) stop() job.Progress {
	close(r.quit)
	return r.get()
}
