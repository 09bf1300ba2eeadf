// SPDX-License-Identifier: Apache-2.0

package shim

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/containerd/containerd/api/types/runc/options"
	runtimeoptions "github.com/containerd/containerd/api/types/runtimeoptions/v1"
	"github.com/containerd/errdefs"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
)

// The types that options come in. Names are compared without what precedes the
// last slash: containerd leaves the host away, other clients do not.
const (
	typeOptions        = "containerd.runc.v1.Options"
	typeRuntimeOptions = "runtimeoptions.v1.Options"
	typeCheckpoint     = "containerd.runc.v1.CheckpointOptions"
)

// configFile has defaults for tasks that come without options.
const configFile = "/etc/mig/shim.toml"

// decodeOptions reads the runtime options of a create. They are runc's: the
// same configuration works for both runtimes. A fork of the daemon may send the
// generic runtimeoptions with a few lines of TOML instead (CRI does so for
// every runtime but runc). Never nil without an error.
func decodeOptions(a *anypb.Any) (*options.Options, error) {
	opts := &options.Options{}
	switch name := typeName(a); {
	case len(a.GetValue()) == 0:
		return opts, fileOptions(configFile, true, opts)
	case name == typeOptions:
		return opts, unmarshal(a, opts)
	case name == typeLegacyOptions:
		return opts, legacyOptions(a, opts)
	case name == typeRuntimeOptions:
		var generic runtimeoptions.Options
		if err := unmarshal(a, &generic); err != nil {
			return nil, err
		}
		if len(generic.ConfigBody) > 0 {
			return opts, tomlOptions(string(generic.ConfigBody), opts)
		}
		if generic.ConfigPath != "" {
			return opts, fileOptions(generic.ConfigPath, false, opts)
		}
		return opts, fileOptions(configFile, true, opts)
	default:
		return nil, fmt.Errorf("runtime options of type %q; %s or %s are understood: %w",
			name, typeOptions, typeRuntimeOptions, errdefs.ErrInvalidArgument)
	}
}

// decodeCheckpoint reads the options of a checkpoint; nil if there are none.
func decodeCheckpoint(a *anypb.Any) (*options.CheckpointOptions, error) {
	opts := &options.CheckpointOptions{}
	switch name := typeName(a); name {
	case "":
		return nil, nil
	case typeCheckpoint:
		return opts, unmarshal(a, opts)
	case typeLegacyCheckpoint:
		return opts, legacyCheckpoint(a, opts)
	default:
		return nil, fmt.Errorf("checkpoint options of type %q; %s is understood: %w",
			name, typeCheckpoint, errdefs.ErrInvalidArgument)
	}
}

func typeName(a *anypb.Any) string {
	url := a.GetTypeUrl()
	return url[strings.LastIndex(url, "/")+1:]
}

func unmarshal(a *anypb.Any, m proto.Message) error {
	if err := proto.Unmarshal(a.GetValue(), m); err != nil {
		return fmt.Errorf("decode %s: %w: %w", typeName(a), err, errdefs.ErrInvalidArgument)
	}
	return nil
}

func fileOptions(path string, optional bool, opts *options.Options) error {
	data, err := os.ReadFile(path)
	if os.IsNotExist(err) && optional {
		return nil
	}
	if err != nil {
		return fmt.Errorf("shim configuration: %w", err)
	}
	if err := tomlOptions(string(data), opts); err != nil {
		return fmt.Errorf("shim configuration %s: %w", path, err)
	}
	return nil
}

// runtimeRoot is the directory of the runtime's state. By default it is in the
// bundle: it goes with it, and two daemons with equal ids do not meet.
func runtimeRoot(opts *options.Options, namespace, bundle string) string {
	if opts.Root != "" {
		return filepath.Join(opts.Root, namespace)
	}
	return filepath.Join(bundle, "state")
}
