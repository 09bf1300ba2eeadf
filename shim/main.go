// SPDX-License-Identifier: Apache-2.0

package shim

import (
	"fmt"
	"io"
	"log/slog"
	"os"
	goruntime "runtime"

	"github.com/io-mig/mig/shim/bootstrap"
	"google.golang.org/protobuf/proto"
)

// Main is the whole program, on the command line without the program's name. m
// may be nil: then checkpoints and restores are refused. It returns the exit
// status. containerd reads stdout to the last byte: nothing else may be written
// to it.
func Main(args []string, m Migrator) int {
	out, err := run(args, m)
	if err == nil {
		_, err = os.Stdout.Write(out)
	}
	if err != nil {
		fmt.Fprintf(os.Stderr, "%s: %v\n", Name, err)
		return 1
	}
	return 0
}

func run(args []string, m Migrator) (stdout []byte, err error) {
	f, err := bootstrap.ParseFlags(args)
	if err != nil {
		return nil, err
	}
	switch {
	case f.Version:
		v := version()
		return fmt.Appendf(nil, "%s:\n  Version:  %s\n  Revision: %s\n  Go version: %s\n",
			Name, v.Version, v.Revision, goruntime.Version()), nil
	case f.Info:
		return info(os.Stdin)
	}
	switch f.Action {
	case bootstrap.ActionStart:
		return start(f, os.Stdin)
	case bootstrap.ActionDelete:
		resp, err := remove(f)
		if err != nil {
			return nil, err
		}
		return proto.Marshal(resp)
	default:
		err := serve(f, m)
		if err != nil {
			slog.Error("shim ends", "error", err)
		}
		return nil, err
	}
}

// start is the action of that name: it needs the options only for the cgroup of
// the shim, and leaves it to Create to refuse a type it does not know.
func start(f bootstrap.Flags, stdin io.Reader) ([]byte, error) {
	p, err := bootstrap.ReadParams(stdin, f)
	if err != nil {
		return nil, err
	}
	shimCgroup := ""
	if opts, err := decodeOptions(p.Options); err == nil {
		shimCgroup = opts.ShimCgroup
	}
	return bootstrap.Start(f, p, shimCgroup)
}
