// SPDX-License-Identifier: Apache-2.0

// Command mig saves, restores and moves containers of the runtime io.mig.v1, and
// looks at containers, requests and images.
//
// Rules of its output: results go to standard output, errors to standard error,
// one JSON object or array with --json. Exit status 0 is success, 1 a "no" or
// an error. What comes from containers and images is printed without control
// characters: names of files are the container's to choose.
package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/signal"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/io-mig/mig/layers/engine"
	"github.com/io-mig/mig/layers/request/enginepipe"
)

func main() { os.Exit(run(os.Args[1:])) }

// run is the program as a function; it returns the exit status.
func run(args []string) int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, unix.SIGTERM)
	defer stop()
	root := &cobra.Command{
		Use:   "mig",
		Short: "Save, restore and move containers of the runtime io.mig.v1, and look at them, their requests and images",
		// Errors are about containers and images, not about how to type.
		SilenceUsage: true, SilenceErrors: true,
		Version: fmt.Sprintf("%s, build %s", engine.Version, enginepipe.Build),
	}
	root.SetVersionTemplate("mig {{.Version}}\n")
	root.AddCommand(checkCommand(), checkpointCommand(), restoreCommand(), statusCommand(), abortCommand(), migrateCommand(), certsCommand(), inspectCommand(), verifyCommand())
	root.SetArgs(args)
	if err := root.ExecuteContext(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "mig:", plain(err.Error())+asRoot(err))
		return 1
	}
	return 0
}

// asRoot is the remedy of somebody who may not look at containers.
func asRoot(err error) string {
	if os.Geteuid() == 0 || !errors.Is(err, fs.ErrPermission) {
		return ""
	}
	return " (you are not root, who containers and mig's files belong to)"
}

// words wants so many arguments, and says which.
func words(n int) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		return usage(cmd, cobra.ExactArgs(n)(cmd, args))
	}
}

// usage says how a command is typed.
func usage(cmd *cobra.Command, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%w: %s (%s --help)", err, cmd.UseLine(), cmd.CommandPath())
}
