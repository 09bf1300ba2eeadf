// SPDX-License-Identifier: Apache-2.0

// Package reexec is libcontainer's half inside a new container: importing it is
// enough. libcontainer runs /proc/self/exe again with the argument "init", C
// code in nsenter enters the namespaces before Go starts, and this package's
// init function takes over from there and never returns.
//
// It is a package of its own, with few imports, because of the order in which
// Go initialises packages (by import path, as soon as their own imports are
// done): this one is ready before protobuf and gRPC are, and a container's start
// pays for none of them.
package reexec

import (
	"os"

	"github.com/opencontainers/runc/libcontainer"
	_ "github.com/opencontainers/runc/libcontainer/nsenter" // its C constructor joins the namespaces
)

// initPipe is set by libcontainer for its own "init" only, so that a program
// may have a command of that name.
const initPipe = "_LIBCONTAINER_INITPIPE"

func init() { Run() }

// Run becomes the container's init if this process was started as one, and then
// does not return. Otherwise it does nothing.
func Run() {
	if len(os.Args) > 1 && os.Args[1] == "init" && os.Getenv(initPipe) != "" {
		libcontainer.Init()
	}
}
