// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/io-mig/mig/layers/request"
	"github.com/io-mig/mig/layers/request/address"
	"github.com/io-mig/mig/layers/request/journal"
	"github.com/io-mig/mig/spec/wire"
)

func abortCommand() *cobra.Command {
	var all stores
	var timeout time.Duration
	var force bool
	c := &cobra.Command{
		Use:   "abort REQUEST|TOKEN",
		Short: "Have a running checkpoint, restore or move undone",
		Long: `Have a running checkpoint, restore or move undone, and wait until it is.

Before its decision a checkpoint or a move is rolled back, and the container runs
on; a restore is removed. After it the request goes to its end, and mig abort
fails.

The source of a move that was cut off after its decision stays frozen until the
destination says what became of the copy. If you know that the copy is dead, and
never comes back, --force lets the source go on. If the copy lives all the same,
there are two of it.`,
		Args: words(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			store, st, err := all.find(args[0])
			if err != nil {
				return err
			}
			if force {
				if !forcible(st) {
					return fmt.Errorf("request %s is %s: no container of it is in doubt, there is nothing to force", st.ID, st.Phase)
				}
				if err := forceSource(st); err != nil {
					return err
				}
				if st.Phase.Final() { // its engine has ended, its shim waits
					fmt.Fprintf(cmd.OutOrStdout(), "the shim of container %s lets it go on\n", oneLine(st.Container))
					return nil
				}
			}
			if err := store.Abort(st.ID); err != nil {
				return err
			}
			st, err = awaitEnd(cmd.Context(), store, st.ID, timeout)
			if err != nil {
				return err
			}
			if force && st.Phase == request.Failed {
				fmt.Fprintf(cmd.OutOrStdout(), "request %s is ended by force: %s\n", st.ID, phaseText(st))
				return nil
			}
			if st.Phase != request.Canceled {
				return fmt.Errorf("request %s could not be aborted: it is %s", st.ID, phaseText(st))
			}
			fmt.Fprintf(cmd.OutOrStdout(), "request %s is aborted\n", st.ID)
			return nil
		},
	}
	all.flags(c)
	c.Flags().BoolVar(&force, "force", false, "the copy of a move is dead for good: let the source go on")
	c.Flags().DurationVar(&timeout, "timeout", time.Minute, "how long to wait for the end")
	return c
}

// forcible: a request that runs, or whose container may still be frozen behind it. An
// engine that died in the middle has left no more than that it failed.
func forcible(st *request.Status) bool {
	switch {
	case !st.Phase.Final() || st.Doubt != nil:
		return true
	case st.Phase != request.Failed:
		return false
	}
	return st.Failure == nil || ends[st.Failure.End] == "" || st.Failure.End == "held"
}

// forceSource tells whoever resolves a move that a person has decided it.
func forceSource(st *request.Status) error {
	if !address.IsMove(st.Image) {
		return fmt.Errorf("request %s is no move of a container away from this host: there is nothing to force", st.ID)
	}
	token, err := wire.ParseToken(st.Token)
	if err != nil {
		return err
	}
	if err := journal.Force(journal.Dir, token); err != nil {
		return fmt.Errorf("request %s cannot be decided by a person (mig abort without --force undoes what is not decided yet): %w", st.ID, err)
	}
	return nil
}

// pollEvery is how often a status is read again: not more often than it is
// written.
const pollEvery = 100 * time.Millisecond

// awaitEnd waits for a request's last status.
func awaitEnd(ctx context.Context, store *request.Store, id string, timeout time.Duration) (*request.Status, error) {
	end := time.NewTimer(timeout)
	defer end.Stop()
	for {
		st, err := store.Read(id)
		if err != nil || st.Phase.Final() {
			return st, err
		}
		select {
		case <-ctx.Done():
			return nil, fmt.Errorf("request %s: stopped waiting for its end: %w", id, context.Cause(ctx))
		case <-end.C:
			return nil, fmt.Errorf("request %s has not ended within %s (mig status %s shows it)", id, timeout, id)
		case <-time.After(pollEvery):
		}
	}
}

// phaseText is a phase and, of a failed request, why.
func phaseText(st *request.Status) string {
	if st.Failure == nil {
		return string(st.Phase)
	}
	return fmt.Sprintf("%s: %s", st.Phase, st.Failure.Text)
}
