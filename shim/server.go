// SPDX-License-Identifier: Apache-2.0

package shim

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"sync"
	"time"

	"github.com/containerd/ttrpc"
	"github.com/io-mig/mig/shim/bootstrap"
	"github.com/io-mig/mig/shim/events"
	"golang.org/x/sys/unix"
)

// Deadlines of a shutdown. containerd waits 3 s for it.
const (
	eventRetry   = 500 * time.Millisecond
	flushTimeout = 2 * time.Second
	closeTimeout = 500 * time.Millisecond
)

// serve is the long-lived process of a group of containers. It returns after
// the last container is gone and containerd has asked for the end, or after
// SIGTERM.
func serve(f bootstrap.Flags, m Migrator) error {
	if err := openLog(f.Debug); err != nil {
		return err
	}
	memory := limitMemory()
	// Orphans of the containers, and the containers of a runtime that forks
	// twice, become children of this process.
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("become a subreaper: %w", err)
	}
	l, err := bootstrap.Listener()
	if err != nil {
		return err
	}
	server, err := ttrpc.NewServer(
		ttrpc.WithServerHandshaker(ttrpc.UnixSocketRequireSameUser()),
		ttrpc.WithUnaryServerInterceptor(memory.worked))
	if err != nil {
		return fmt.Errorf("ttrpc server: %w", err)
	}
	if m != nil {
		if err := m.Open(); err != nil {
			slog.Warn("there will be no checkpoints or restores", "error", err)
		}
	}
	ended := make(chan struct{})
	var once sync.Once
	end := func() { once.Do(func() { close(ended) }) }

	queue := events.NewQueue(events.NewClient(os.Getenv(bootstrap.TTRPCAddressEnv), f.Namespace), eventRetry)
	s := newService(f.Namespace, queue, m, end)
	s.daemon = f.Address
	s.register(server)
	go s.endIfOrphan(ended)
	go handleSignals(catchSignals(), end)
	go func() {
		if err := server.Serve(context.Background(), l); !errors.Is(err, ttrpc.ErrServerClosed) && !errors.Is(err, net.ErrClosed) {
			slog.Error("ttrpc server", "error", err)
			end()
		}
	}()
	<-ended
	return shutDown(server, queue, l.Addr().String())
}

// shutDown answers what is being asked, delivers the last events and removes
// the socket, so that no later shim of the group takes this one for alive.
func shutDown(server *ttrpc.Server, queue *events.Queue, socket string) error {
	err := os.Remove(socket)
	if errors.Is(err, os.ErrNotExist) {
		err = nil
	}
	flush, cancel := context.WithTimeout(context.Background(), flushTimeout)
	defer cancel()
	err = errors.Join(err, queue.Close(flush))
	closeLog()
	ctx, cancelClose := context.WithTimeout(context.Background(), closeTimeout)
	defer cancelClose()
	// containerd keeps its connection open: the time-out is the normal case.
	if closeErr := server.Shutdown(ctx); closeErr != nil && !errors.Is(closeErr, context.DeadlineExceeded) {
		err = errors.Join(err, closeErr)
	}
	return err
}
