// SPDX-License-Identifier: Apache-2.0

// Command demo shows in a minute what mig does: a Redis in a container is
// filled, saved, removed and brought back, and proves that it is the same
// process with the same data; then one moves to another host and back, while
// clients on a third are at work on it. It works on private containerds, and on
// hosts made of namespaces, and leaves nothing behind.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/io-mig/mig/integration/internal/daemon"
	"github.com/io-mig/mig/integration/internal/image"
	"github.com/io-mig/mig/integration/internal/repo"
	"github.com/io-mig/mig/integration/internal/workload"
)

const (
	runtimeName = "io.mig.v1"
	name        = "redis"
	saved       = "mig.test/saved:1"
	keys        = 200_000
	keySize     = 100
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	err := run(ctx, screen{out: os.Stdout, colour: isTerminal(os.Stdout)})
	if ctx.Err() != nil {
		fmt.Fprintln(os.Stderr, "demo: interrupted")
		os.Exit(128 + int(syscall.SIGINT))
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "demo:", err)
		os.Exit(1)
	}
}

// run shows everything.
func run(ctx context.Context, s screen) error {
	tree, err := repo.Find()
	if err != nil {
		return err
	}
	if err := showSaved(ctx, s, tree); err != nil {
		return err
	}
	return showLive(ctx, s, tree)
}

// showSaved is the first part of the story. It cleans up whatever happens.
func showSaved(ctx context.Context, s screen, tree repo.Tree) (err error) {
	var d *daemon.Daemon
	err = s.step("a private containerd 2.4, its own socket, root and state", func() (string, error) {
		var err error
		d, err = daemon.Start(ctx, tree, daemon.Config{Version: daemon.V24})
		return "", err
	})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, d.Close()) }()
	err = show(ctx, s, d)
	switch {
	case ctx.Err() != nil:
		fmt.Fprintln(os.Stderr, "\ndemo: cleaning up")
	case err != nil:
		// The daemon's log holds the reason; it is gone after Close.
		fmt.Fprintf(os.Stderr, "%s\n", d.Log())
	}
	return err
}

// show is what happens in it.
func show(ctx context.Context, s screen, d *daemon.Daemon) error {
	redis := workload.Redis{Daemon: d, ID: name}
	var before, after workload.Proof
	var down time.Time
	steps := []struct {
		what string
		do   func() (string, error)
	}{
		{"an image made of this machine's redis-server", func() (string, error) { return "", load(ctx, d) }},
		{"ctr run --runtime io.mig.v1 redis", func() (string, error) {
			return "", ctr(ctx, d, "run", "--detach", "--null-io", "--runtime", runtimeName, image.Redis.Name, name)
		}},
		{fmt.Sprintf("%d keys written", keys), func() (string, error) {
			if err := redis.Ready(ctx); err != nil {
				return "", err
			}
			return "", redis.Fill(ctx, keys, keySize)
		}},
		{"what it holds", func() (string, error) {
			var err error
			before, err = redis.Proof(ctx)
			return describe(before), err
		}},
		{"ctr containers checkpoint --rw --image --task", func() (string, error) {
			down = time.Now()
			return "", ctr(ctx, d, "containers", "checkpoint", "--rw", "--image", "--task", name, saved)
		}},
		{"the container is killed and removed", func() (string, error) {
			return "", errors.Join(ctr(ctx, d, "tasks", "delete", "--force", name), ctr(ctx, d, "containers", "delete", name))
		}},
		{"ctr containers restore --rw --live", func() (string, error) {
			err := ctr(ctx, d, "containers", "restore", "--rw", "--live", name, saved)
			return fmt.Sprintf("%v after the checkpoint began", time.Since(down).Round(time.Millisecond)), err
		}},
		{"what it holds now", func() (string, error) {
			var err error
			after, err = redis.Proof(ctx)
			return describe(after), err
		}},
		{"the same process, the same data", func() (string, error) {
			if before != after {
				return "", fmt.Errorf("it holds %+v, before it held %+v", after, before)
			}
			return "", nil
		}},
		{"everything is removed again", func() (string, error) { return "", leave(ctx, d) }},
	}
	for _, step := range steps {
		if err := s.step(step.what, step.do); err != nil {
			return fmt.Errorf("%s: %w", step.what, err)
		}
	}
	return nil
}

// load builds the image and imports it.
func load(ctx context.Context, d *daemon.Daemon) error {
	archive, err := image.Redis.Write(d.Dir)
	if err != nil {
		return err
	}
	return d.Import(ctx, archive)
}

// leave removes the container and looks for anything left.
func leave(ctx context.Context, d *daemon.Daemon) error {
	if err := errors.Join(ctr(ctx, d, "tasks", "delete", "--force", name), ctr(ctx, d, "containers", "delete", name)); err != nil {
		return err
	}
	if leaks := d.Leaks(); len(leaks) > 0 {
		return fmt.Errorf("left behind: %v", leaks)
	}
	return nil
}

// ctr runs ctr. `tasks delete --force` reports the killed task's status as its
// own, which is no failure here.
func ctr(ctx context.Context, d *daemon.Daemon, args ...string) error {
	result := d.Ctr(ctx, args...)
	if args[0] == "tasks" && args[1] == "delete" && result.Code == 128+int(syscall.SIGKILL) {
		return nil
	}
	return result.Err()
}

func describe(p workload.Proof) string {
	if p.Digest == "" {
		return ""
	}
	return fmt.Sprintf("%d keys, digest %s…, run id %s…", p.Keys, p.Digest[:8], p.RunID[:8])
}
