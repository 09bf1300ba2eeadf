// SPDX-License-Identifier: Apache-2.0

package bootstrap

import (
	"fmt"
	"io"

	bootapi "github.com/containerd/containerd/api/runtime/bootstrap/v1"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
)

// maxInput bounds what is read from standard input (containerd's own limit).
const maxInput = 10 << 20

// Form is the dialect that the caller speaks.
type Form int

const (
	// FormPlain: options on stdin, the bare address on stdout, task API v2.
	FormPlain Form = iota
	// FormBootstrap: BootstrapParams and BootstrapResult, task API v3.
	FormBootstrap
)

// Params is what `start` was asked, whatever the form.
type Params struct {
	Form Form
	// Options are the runtime options, nil if there are none.
	Options *anypb.Any
	Debug   bool
	// SocketDir is where the socket goes.
	SocketDir string
	// GRPCAddress is part of the socket's name, so that two daemons with the
	// same container ids do not meet.
	GRPCAddress string
	// TTRPCAddress is where events go; empty leaves TTRPC_ADDRESS as it is.
	TTRPCAddress string
}

// ReadParams reads what containerd wrote to stdin. Runtime options can happen
// to decode as BootstrapParams, therefore the latter count only if they name
// the same task as the command line.
func ReadParams(stdin io.Reader, f Flags) (Params, error) {
	input, err := io.ReadAll(io.LimitReader(stdin, maxInput))
	if err != nil {
		return Params{}, fmt.Errorf("read bootstrap parameters from stdin: %w", err)
	}
	p := Params{Debug: f.Debug, SocketDir: DefaultSocketDir, GRPCAddress: f.Address}

	var boot bootapi.BootstrapParams
	if len(input) > 0 && proto.Unmarshal(input, &boot) == nil &&
		boot.InstanceID == f.ID && boot.Namespace == f.Namespace {
		return p.fromBootstrap(&boot), nil
	}
	if len(input) == 0 {
		return p, nil
	}
	var options anypb.Any
	if err := proto.Unmarshal(input, &options); err != nil {
		return Params{}, fmt.Errorf("stdin holds neither bootstrap parameters for task %q nor runtime options: %w", f.ID, err)
	}
	if options.TypeUrl != "" {
		p.Options = &options
	}
	return p, nil
}

func (p Params) fromBootstrap(boot *bootapi.BootstrapParams) Params {
	p.Form = FormBootstrap
	p.Debug = p.Debug || boot.LogLevel <= bootapi.LogLevel_LOG_LEVEL_DEBUG
	if boot.GetSocketDir() != "" {
		p.SocketDir = boot.GetSocketDir()
	}
	if boot.ContainerdGrpcAddress != "" {
		p.GRPCAddress = boot.ContainerdGrpcAddress
	}
	p.TTRPCAddress = boot.ContainerdTtrpcAddress
	for _, e := range boot.GetExtensions() {
		// The daemon puts the runtime options in as the only extension.
		if v := e.GetValue(); v != nil && p.Options == nil {
			p.Options = v
		}
	}
	return p
}

// Encode is what goes to stdout for a server at address.
func (f Form) Encode(address string) ([]byte, error) {
	if f == FormPlain {
		return []byte(address), nil
	}
	data, err := proto.Marshal(&bootapi.BootstrapResult{Version: 3, Address: address, Protocol: "ttrpc"})
	if err != nil {
		return nil, fmt.Errorf("encode bootstrap result: %w", err)
	}
	return data, nil
}
