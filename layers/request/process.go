// SPDX-License-Identifier: Apache-2.0

package request

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/io-mig/mig/layers/request/enginepipe"
	"github.com/io-mig/mig/layers/request/job"
)

// ProcessEngine runs each job in a process of its own, so that ptrace stops and
// the supervisor's reaping do not mix, and a crash of the engine is none of the
// supervisor. It needs a Program or an Argv.
type ProcessEngine struct {
	// Program is run where there is no Argv. It stays the caller's.
	Program *Program
	// Argv of the engine process; Argv[0] is also the file that is run.
	Argv []string
	// Env of the engine process; nil means a PATH and nothing else.
	Env []string
	// Log returns the file that takes the engine's standard output and error,
	// at most MaxLog bytes of it. An empty name means none.
	Log func(*job.Job) string
	// Spawn, if set, runs start, which starts the engine, and returns what is to
	// be called when it was waited for. A program that reaps orphans tells its
	// own children from them that way.
	Spawn func(start func() (pid int, err error)) (release func(), err error)
	// Quiescer, if set, is asked for who puts a job's application to rest (jobs
	// with Quiesce); nil is nobody, who is at once.
	Quiescer func(*job.Job) job.Quiescer
	// Grace is how long a cancelled engine may take before it is killed; 0
	// means DefaultGrace.
	Grace time.Duration
}

// DefaultGrace leaves the engine time to undo, and to give up by itself first.
const DefaultGrace = enginepipe.AbandonAfter + 15*time.Second

// sendTimeout bounds how long the engine may take to read what is sent to it.
const sendTimeout = 10 * time.Second

// drainDelay is how long the engine's output is read after its death, in case
// another process has inherited it.
const drainDelay = 2 * time.Second

// Start spawns the engine and sends it the job.
func (p *ProcessEngine) Start(ctx context.Context, j *job.Job, files []*os.File) (Running, error) {
	if err := j.Valid(); err != nil {
		return nil, err
	}
	logName := ""
	if p.Log != nil {
		logName = p.Log(j)
	}
	r, err := p.launch(logName)
	if err != nil {
		return nil, err
	}
	if err := p.begin(ctx, r, j, files); err != nil {
		return nil, err
	}
	return r, nil
}

// launch spawns an engine that waits for its job.
func (p *ProcessEngine) launch(logName string) (*process, error) {
	ours, theirs, err := socketPair()
	if err != nil {
		return nil, err
	}
	defer theirs.Close()
	conn, err := enginepipe.NewConn(ours)
	if err != nil {
		return nil, err
	}
	out, err := newOutput(logName)
	if err != nil {
		conn.Close()
		return nil, err
	}
	cmd := p.command(theirs, out)
	release, err := p.spawn(cmd)
	if err != nil {
		conn.Close()
		out.Close()
		return nil, fmt.Errorf("start the engine %s: %w", cmd.Args[0], err)
	}
	r := &process{
		cmd: cmd, release: release, conn: conn, out: out, grace: p.Grace, progress: make(chan job.Progress, 1),
		asked: make(chan struct{}), gone: make(chan struct{}), began: time.Now(),
	}
	if r.grace <= 0 {
		r.grace = DefaultGrace
	}
	return r, nil
}

// begin sends the job to a process and supervises it from then on. After an error
// the process is gone.
func (p *ProcessEngine) begin(ctx context.Context, r *process, j *job.Job, files []*os.File) error {
	if j.Quiesce && p.Quiescer != nil {
		r.app = p.Quiescer(j)
	}
	if err := r.conn.Send(enginepipe.Message{Job: j, Build: enginepipe.Build}, sendTimeout, files...); err != nil {
		return errors.Join(fmt.Errorf("send the job to the engine: %w", err), r.discard(ctx))
	}
	go r.supervise(ctx)
	return nil
}

// discard ends a process that has no job. It returns how it ended.
func (r *process) discard(ctx context.Context) error {
	r.cmd.Process.Kill()
	go r.supervise(ctx)
	_, died := r.Wait()
	return died
}

// spawn starts the process.
func (p *ProcessEngine) spawn(cmd *exec.Cmd) (release func(), err error) {
	start := func() (int, error) {
		if err := cmd.Start(); err != nil {
			return 0, err
		}
		return cmd.Process.Pid, nil
	}
	if p.Spawn != nil {
		return p.Spawn(start)
	}
	_, err = start()
	return func() {}, err
}

func (p *ProcessEngine) command(theirs *os.File, out *output) *exec.Cmd {
	cmd := p.program()
	p.surroundings(cmd)
	cmd.Stdout, cmd.Stderr = out, out
	cmd.ExtraFiles = []*os.File{theirs} // becomes enginepipe.FD
	return cmd
}

// surroundings are the same for all engine processes.
func (p *ProcessEngine) surroundings(cmd *exec.Cmd) {
	cmd.Env = p.Env
	if cmd.Env == nil {
		cmd.Env = []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}
	}
	cmd.Dir = "/"
	cmd.WaitDelay = drainDelay
	// A group of its own: a signal to the supervisor's must not end it. No
	// session of its own: each is given as much of the processors as the container
	// (autogroups of sched(7)), which waits for longer then while its memory is
	// copied. No parent death signal, which follows the thread that forked and
	// would leave no time to undo: the engine sees our death as the end of its
	// socket.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
}

// program is what is run, with its arguments.
func (p *ProcessEngine) program() *exec.Cmd {
	if len(p.Argv) > 0 {
		return exec.Command(p.Argv[0], p.Argv[1:]...)
	}
	return &exec.Cmd{Path: p.Program.name(), Args: []string{p.Program.path}}
}

func socketPair() (ours, theirs *os.File, err error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, nil, fmt.Errorf("socket pair for the engine: %w", err)
	}
	return os.NewFile(uintptr(fds[0]), "engine"), os.NewFile(uintptr(fds[1]), "supervisor"), nil
}

// process is one engine process.
type process struct {
	cmd      *exec.Cmd
	release  func()
	conn     *enginepipe.Conn
	out      *output
	grace    time.Duration
	progress chan job.Progress
	killed   atomic.Bool
	// decided: the engine has said so, and gives up by itself. heard is when it said
	// something last, in nanoseconds since began.
	decided atomic.Bool
	heard   atomic.Int64
	began   time.Time

	// app puts the application to rest, nil if it need not be.
	app job.Quiescer

	ask   sync.Once
	asked chan struct{} // closed by Cancel
	gone  chan struct{} // closed when last and err are set: the outcome is known
	last  job.Progress
	err   error

	keepMu sync.Mutex
	kept   map[uint64]*os.File // what the engine wants held, guarded by keepMu
	left   int                 // how many it has left; read's
}

// maxKept bounds the descriptors that are held for an engine, maxLeft those that it
// leaves for a while.
const (
	maxKept = 4096
	maxLeft = 4
)

// keep takes over the descriptor of a keep message.
func (r *process) keep(number uint64, files []*os.File) error {
	r.keepMu.Lock()
	defer r.keepMu.Unlock()
	if len(files) != 1 || r.kept[number] != nil || len(r.kept) >= maxKept {
		return fmt.Errorf("the engine has %d descriptors kept as number %d, %d are kept already", len(files), number, len(r.kept))
	}
	if r.kept == nil {
		r.kept = map[uint64]*os.File{}
	}
	r.kept[number] = files[0]
	return nil
}

// leave takes over the descriptor of a leave message, for a while.
func (r *process) leave(d time.Duration, files []*os.File) error {
	if len(files) != 1 || d <= 0 || d > job.LongestLeft || r.left >= maxLeft {
		return fmt.Errorf("the engine leaves %d descriptors for %s, it has left %d already", len(files), d, r.left)
	}
	r.left++
	f := files[0]
	time.AfterFunc(d, func() { f.Close() })
	return nil
}

// take takes over what comes with a message.
func (r *process) take(m *enginepipe.Message, files []*os.File) (taken bool, err error) {
	switch {
	case m.Keep != 0:
		err = r.keep(m.Keep, files)
	case m.Leave != 0:
		err = r.leave(m.Leave, files)
	default:
		return false, nil
	}
	return err == nil, err
}

// drop closes one, or all with number 0.
func (r *process) drop(number uint64) {
	r.keepMu.Lock()
	defer r.keepMu.Unlock()
	for n, f := range r.kept {
		if number == 0 || n == number {
			f.Close()
			delete(r.kept, n)
		}
	}
}

// Release closes what is still held for the engine.
func (r *process) Release() { r.drop(0) }

func (r *process) Progress() <-chan job.Progress { return r.progress }

func (r *process) Pid() int { return r.cmd.Process.Pid }

func (r *process) Cancel() { r.ask.Do(func() { close(r.asked) }) }

func (r *process) Wait() (job.Progress, error) {
	<-r.gone
	return r.last, r.err
}

// supervise sees the engine to its end.
func (r *process) supervise(ctx context.Context) {
	exited := make(chan struct{})
	go r.stopper(ctx, exited)
	end, broken := r.read(ctx)
	// A success counts when it is told: by then the engine holds nothing any more,
	// and how it exits is of no interest. Behind a failure its supervisor puts back
	// what may be left of it, and the freezer is the engine's as long as it lives.
	told := end != nil && end.Failure == nil
	if told {
		r.conclude(end)
	}
	// Nothing more is expected of it. One that does not exit is killed by the
	// stopper after its grace.
	r.Cancel()
	waited := r.cmd.Wait()
	r.release()
	close(exited)
	r.conn.Close()
	r.out.Close()
	if told {
		return
	}
	if end == nil {
		r.err = &EngineDiedError{Exit: waited, Broken: broken, Killed: r.killed.Load(), LastLines: r.out.tail()}
	}
	r.conclude(end)
}

// conclude makes the outcome known to those who wait.
func (r *process) conclude(end *enginepipe.End) {
	if end != nil {
		r.last = end.Last
		if end.Failure != nil {
			r.err = end.Failure
		}
	}
	close(r.progress)
	close(r.gone)
}

// read receives until the engine's last message or the end of the stream.
func (r *process) read(ctx context.Context) (*enginepipe.End, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	for {
		m, files, err := r.conn.Receive()
		r.heard.Store(int64(time.Since(r.began)))
		if err == nil {
			var taken bool
			if taken, err = r.take(&m, files); taken {
				continue
			}
		}
		for _, f := range files {
			f.Close() // an engine sends no others
		}
		switch {
		case errors.Is(err, io.EOF):
			return nil, nil
		case err != nil:
			return nil, err
		case m.End != nil:
			if m.End.Failure == nil {
				r.drop(0)
			}
			return m.End, nil
		case m.Drop != 0:
			r.drop(m.Drop)
		case m.Decided:
			r.decided.Store(true)
		case m.Quiesce:
			go r.quiesce(ctx)
		case m.Wake != nil:
			if r.app != nil {
				r.wake(m.Wake.Reason)
			}
		case m.Progress != nil:
			r.last = *m.Progress
			r.offer(*m.Progress)
		}
	}
}

// offer replaces what was not read yet. It is the channel's only sender.
func (r *process) offer(p job.Progress) {
	select {
	case <-r.progress:
	default:
	}
	r.progress <- p
}

// stopper turns a cancel into a message and, after the grace, into a kill. The
// engine's death is no harm: injection is kill-safe, and a frame dies with it.
func (r *process) stopper(ctx context.Context, exited <-chan struct{}) {
	select {
	case <-exited:
		return
	case <-ctx.Done():
	case <-r.asked:
	}
	// One that does not read is as good as cancelled: its socket breaks.
	_ = r.conn.Send(enginepipe.Message{Cancel: true}, sendTimeout)
	for wait := r.grace; wait > 0; wait = r.more() {
		t := time.NewTimer(wait)
		select {
		case <-exited:
			t.Stop()
			return
		case <-t.C:
		}
	}
	r.killed.Store(true)
	r.cmd.Process.Kill()
}

// more is how much longer an engine whose grace is over may take: as long as it tells
// of itself, if what it does cannot be undone any more.
func (r *process) more() time.Duration {
	if !r.decided.Load() {
		return 0
	}
	return r.grace - (time.Since(r.began) - time.Duration(r.heard.Load()))
}

// EngineDiedError is an engine process that ended without telling the outcome.
// Before the decision that means: the source's tasks go on, a frame is gone.
type EngineDiedError struct {
	// Exit is how it ended, as os/exec tells it; nil for exit status 0.
	Exit error
	// Broken is set where its last words could not be understood.
	Broken error
	// Killed: by us, since it did not end after it was cancelled.
	Killed bool
	// LastLines of its standard output and error.
	LastLines string
}

func (e *EngineDiedError) Error() string {
	how := "exit status 0"
	if e.Exit != nil {
		how = e.Exit.Error()
	}
	s := "the engine process died without telling the outcome: " + how
	if e.Killed {
		s = "the engine process did not end after it was cancelled and was killed: " + how
	}
	if e.Broken != nil {
		s += ": " + e.Broken.Error()
	}
	if e.LastLines != "" {
		s += "; its last lines: " + e.LastLines
	}
	return s
}

// Unwrap returns how it ended.
func (e *EngineDiedError) Unwrap() error { return e.Exit }
