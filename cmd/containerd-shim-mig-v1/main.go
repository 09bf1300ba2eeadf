// SPDX-License-Identifier: Apache-2.0

// Command containerd-shim-mig-v1 is the containerd shim of the runtime
// io.mig.v1. containerd runs it; a person has no use for its command line but
// for -v.
package main

import (
	"os"

	// Must come first: in a new container this program is its first process,
	// and then nothing else of it is to be initialised.
	_ "github.com/io-mig/mig/runtime/reexec"

	"github.com/io-mig/mig/layers/engine"
	"github.com/io-mig/mig/shim"
	"github.com/io-mig/mig/shim/migrate"
)

// subprograms are other programs in this binary, by their first argument. They
// get the arguments that follow, and their result is the exit status.
var subprograms = map[string]func(args []string) int{
	// The process in which one checkpoint or restore runs, started by the shim.
	"engine": func([]string) int { return engine.Main() },
}

func main() {
	args := os.Args[1:]
	if len(args) > 0 {
		if program, ok := subprograms[args[0]]; ok {
			os.Exit(program(args[1:]))
		}
	}
	os.Exit(shim.Main(args, &migrate.Migrator{}))
}
