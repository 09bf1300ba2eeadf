// SPDX-License-Identifier: Apache-2.0

package bootstrap

import (
	"flag"
	"fmt"
	"io"
)

// Actions that containerd asks for. The empty one is the server itself.
const (
	ActionServe  = ""
	ActionStart  = "start"
	ActionDelete = "delete"
)

// Flags are the command line that containerd gives every shim (containerd
// v2.4.2 core/runtime/v2/command.go). Flags that are accepted and not used
// here have no field.
type Flags struct {
	Namespace string
	ID        string
	// Address is containerd's gRPC socket; only part of the socket's hash.
	Address string
	// Bundle is set for `delete` by some versions; the working directory is
	// the bundle in any case.
	Bundle  string
	Debug   bool
	Version bool
	Info    bool
	Action  string
}

// ParseFlags reads args, without the program's name. Errors name the flag.
func ParseFlags(args []string) (Flags, error) {
	var f Flags
	var unused string
	set := flag.NewFlagSet("containerd-shim-mig-v1", flag.ContinueOnError)
	set.SetOutput(io.Discard)
	set.StringVar(&f.Namespace, "namespace", "", "containerd namespace of the task")
	set.StringVar(&f.ID, "id", "", "id of the task")
	set.StringVar(&f.Address, "address", "", "containerd's gRPC address")
	set.StringVar(&f.Bundle, "bundle", "", "path of the bundle")
	set.StringVar(&unused, "publish-binary", "", "not used: events go to TTRPC_ADDRESS")
	set.StringVar(&unused, "socket", "", "not used: the socket is inherited")
	set.StringVar(&unused, "debug-socket", "", "not used")
	set.BoolVar(&f.Debug, "debug", false, "log at debug level")
	set.BoolVar(&f.Version, "v", false, "print the version")
	set.BoolVar(&f.Version, "version", false, "print the version")
	set.BoolVar(&f.Info, "info", false, "print RuntimeInfo as protobuf")
	if err := set.Parse(args); err != nil {
		return Flags{}, fmt.Errorf("command line: %w", err)
	}
	f.Action = set.Arg(0)
	return f, f.check()
}

func (f Flags) check() error {
	if f.Version || f.Info {
		return nil
	}
	switch f.Action {
	case ActionServe, ActionStart, ActionDelete:
	default:
		return fmt.Errorf("command line: unknown action %q (start, delete)", f.Action)
	}
	if f.Namespace == "" {
		return fmt.Errorf("command line: -namespace is missing; this program is started by containerd")
	}
	if f.ID == "" {
		return fmt.Errorf("command line: -id is missing; this program is started by containerd")
	}
	return nil
}
