// SPDX-License-Identifier: Apache-2.0

// Command mig-engine is the process in which one checkpoint or restore runs.
// containerd-shim-mig-v1 starts it from its own directory; a person has no use
// for it.
package main

import (
	"os"

	"github.com/io-mig/mig/layers/engine"
)

func main() { os.Exit(engine.Main(os.Args[1:])) }
