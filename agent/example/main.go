// SPDX-License-Identifier: Apache-2.0

// Command example is an application with an agent: four workers that meet at a
// barrier while their container is checkpointed or moved, and a list of what the
// hooks were told, in the file that it is given. SIGUSR1 has it ask for its own
// checkpoint, SIGUSR2 for its own move to $HOST. While there is a file "hang"
// beside the list, its workers do not come.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"sync/atomic"
	"syscall"

	"github.com/io-mig/mig/agent"
)

func main() {
	if len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, "usage: example LIST, the file in which it notes what its hooks were told")
		os.Exit(2)
	}
	if err := run(os.Args[1]); err != nil {
		fmt.Fprintln(os.Stderr, "example:", err)
		os.Exit(1)
	}
}

// note appends a line to the list.
func note(list, format string, args ...any) {
	f, err := os.OpenFile(list, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o644)
	if err == nil {
		_, err = fmt.Fprintf(f, format+"\n", args...)
		err = errors.Join(err, f.Close())
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "example:", err)
	}
}

func run(list string) error {
	var barrier agent.Barrier
	var done atomic.Uint64
	var met uint64 // what was done when all had met
	c, err := agent.Dial(agent.Hooks{
		Before: func(ctx context.Context, e agent.Event) error {
			note(list, "before move=%v", e.Move)
			err := barrier.Before(ctx, e)
			met = done.Load()
			return err
		},
		After: func(o agent.Outcome) {
			if n := done.Load(); o.Event != "" && o.Reason == "" && n != met {
				note(list, "%d steps were made behind the barrier", n-met)
			}
			note(list, "after restored=%v generation=%s %q", o.Restored, o.Generation, o.Reason)
			barrier.After(o)
		},
	})
	if err != nil {
		return err
	}
	for range 4 {
		barrier.Join()
		go work(&barrier, &done, filepath.Join(filepath.Dir(list), "hang"))
	}
	note(list, "ready generation=%s", c.Generation())
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGUSR1, syscall.SIGUSR2)
	for s := range signals {
		if s == syscall.SIGUSR1 {
			err = c.Checkpoint(context.Background(), false)
		} else {
			err = c.Migrate(context.Background(), os.Getenv("HOST"))
		}
		note(list, "asked %v: %v", s, err)
	}
	return nil
}

func work(b *agent.Barrier, done *atomic.Uint64, hang string) {
	for {
		done.Add(1)
		if done.Load()%1024 == 0 {
			syscall.Nanosleep(&syscall.Timespec{Nsec: 100_000}, nil)
		}
		if _, err := os.Stat(hang); err != nil {
			b.Check()
		}
	}
}
