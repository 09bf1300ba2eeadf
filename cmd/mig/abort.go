// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/io-mig/mig/layers/request"
)

func abortCommand() *cobra.Command {
	var where stores
	var timeout time.Duration
	c := &cobra.Command{
		Use:   "abort REQUEST",
		Short: "Have a running checkpoint or restore undone",
		Long: `Have a running checkpoint or restore undone, and wait until it is.

Before its decision a checkpoint is rolled back, and the container runs on; a
restore is removed. After it the request goes to its end, and mig abort fails.`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			store, _, err := where.find(args[0])
			if err != nil {
				return err
			}
			if err := store.Abort(args[0]); err != nil {
				return err
			}
			st, err := awaitEnd(cmd.Context(), store, args[0], timeout)
			if err != nil {
				return err
			}
			if st.Phase != request.Canceled {
				return fmt.Errorf("request %s could not be aborted: it is %s", st.ID, phaseText(st))
			}
			fmt.Fprintf(cmd.OutOrStdout(), "request %s is aborted\n", st.ID)
			return nil
		},
	}
	where.flags(c)
	c.Flags().DurationVar(&timeout, "timeout", time.Minute, "how long to wait for the end")
	return c
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
