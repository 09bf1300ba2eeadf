// SPDX-License-Identifier: Apache-2.0

// Command containerd-shim-mig-v1 is the containerd shim of the runtime
// io.mig.v1. containerd runs it; a person has no use for its command line but
// for -v. Checkpoints and restores are carried out by mig-engine, which belongs
// into the same directory.
package main

import (
	"os"

	// Must come first: in a new container this program is its first process,
	// and then nothing else of it is to be initialised.
	_ "github.com/io-mig/mig/runtime/reexec"

	"github.com/io-mig/mig/shim"
	"github.com/io-mig/mig/shim/migrate"
)

func main() { os.Exit(shim.Main(os.Args[1:], &migrate.Migrator{})) }
