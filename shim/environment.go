// SPDX-License-Identifier: Apache-2.0

package shim

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	goruntime "runtime"
	"runtime/debug"
	"time"

	"github.com/containerd/ttrpc"
	"github.com/io-mig/mig/runtime"
	"golang.org/x/sys/unix"
)

// The main goroutine keeps the main thread for itself. libcontainer makes mounts
// for a new container in a thread that it moves to that container's mount
// namespace and then throws away. Go cannot throw the main thread away: it
// would stay in the dead container's namespace for ever, and everything that
// reads /proc/self (mountinfo, ns) would look there.
func init() { goruntime.LockOSThread() }

// gcPercent trades a little processor time for memory: there is one shim for
// every pod of a machine (the value is containerd's own).
const gcPercent = 40

// quietTime is how long after the last operation the memory that it needed goes
// back to the kernel. An idle shim does not wake up at all.
const quietTime = 2 * time.Second

// trimmer gives memory back after bursts of work.
type trimmer struct{ timer *time.Timer }

func limitMemory() *trimmer {
	debug.SetGCPercent(gcPercent)
	return &trimmer{time.AfterFunc(quietTime, debug.FreeOSMemory)}
}

// worked is a ttrpc interceptor: it puts the trim off until all is quiet.
func (t *trimmer) worked(ctx context.Context, unmarshal ttrpc.Unmarshaler, _ *ttrpc.UnaryServerInfo, method ttrpc.Method) (any, error) {
	defer t.timer.Reset(quietTime)
	return method(ctx, unmarshal)
}

// openLog connects stderr to the FIFO `log` in the bundle, which containerd
// copies into its own log. It is opened for reading as well: while containerd
// restarts there is no reader, and a write must neither fail nor block. What
// does not fit into the FIFO in that time is lost.
func openLog(verbose bool) error {
	level := slog.LevelInfo
	if verbose {
		level = slog.LevelDebug
	}
	slog.SetDefault(slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: level})).
		With("runtime", Name))
	fd, err := unix.Open("log", unix.O_RDWR|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if errors.Is(err, unix.ENOENT) {
		return nil // not started by containerd: stderr as it is
	}
	if err != nil {
		return fmt.Errorf("open log: %w", err)
	}
	defer unix.Close(fd)
	if err := unix.Dup3(fd, int(unix.Stderr), 0); err != nil {
		return fmt.Errorf("open log: %w", err)
	}
	return nil
}

// closeLog lets containerd see the end of the log before the end of the
// connection; the other way round it would log an error.
func closeLog() {
	if null, err := unix.Open(os.DevNull, unix.O_WRONLY|unix.O_CLOEXEC, 0); err == nil {
		_ = unix.Dup3(null, int(unix.Stderr), 0)
		_ = unix.Close(null)
	}
}

// catchSignals must have returned before the first container is made. SIGHUP
// does nothing here. It is caught if the shim was started with the signal
// ignored, as by a daemon under nohup(1), because Go leaves it so, and execve(2)
// hands on what is ignored, but not what is caught: a container's program starts
// with all signals at their defaults.
func catchSignals() <-chan os.Signal {
	signals := make(chan os.Signal, 32)
	signal.Notify(signals, unix.SIGCHLD, unix.SIGTERM, unix.SIGINT, unix.SIGPIPE, unix.SIGUSR1)
	if signal.Ignored(unix.SIGHUP) {
		signal.Notify(signals, unix.SIGHUP)
	}
	return signals
}

// handleSignals reaps orphans, ends the server on SIGTERM and writes the stacks
// of all goroutines to the log on SIGUSR1.
func handleSignals(signals <-chan os.Signal, end func()) {
	for sig := range signals {
		switch sig {
		case unix.SIGCHLD:
			runtime.ReapOrphans()
		case unix.SIGTERM, unix.SIGINT:
			slog.Info("shim ends", "signal", sig.String())
			end()
		case unix.SIGUSR1:
			buf := make([]byte, 1<<20)
			slog.Info("goroutines", "stacks", string(buf[:goruntime.Stack(buf, true)]))
		}
	}
}
