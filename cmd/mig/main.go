// SPDX-License-Identifier: Apache-2.0

// Command mig looks at containers and images of the runtime io.mig.v1.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, unix.SIGTERM)
	defer stop()
	root := &cobra.Command{
		Use:   "mig",
		Short: "Checkpoint and restore containers of the runtime io.mig.v1",
		// Errors are about containers and images, not about how to type.
		SilenceUsage: true, SilenceErrors: true,
	}
	root.AddCommand(inspectCommand(), verifyCommand())
	if err := root.ExecuteContext(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "mig:", err)
		os.Exit(1)
	}
}
