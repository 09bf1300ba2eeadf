// SPDX-License-Identifier: Apache-2.0

package shim

import (
	"encoding/json"
	"fmt"
	"io"
	"runtime/debug"

	"github.com/containerd/containerd/api/types"
	"github.com/io-mig/mig/runtime"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
)

// Name is the runtime's name in containerd.
const Name = "io.mig.v1"

// featuresType is how containerd's typeurl registers the OCI runtime features
// (containerd v2.4.2 client/client.go): JSON, not protobuf.
const featuresType = "types.containerd.io/opencontainers/runtime-spec/1/features/Features"

// info answers -info: who this runtime is and what it can do. stdin may hold
// the runtime options, as an Any, or nothing.
func info(stdin io.Reader) ([]byte, error) {
	input, err := io.ReadAll(io.LimitReader(stdin, 1<<20))
	if err != nil {
		return nil, fmt.Errorf("read runtime options from stdin: %w", err)
	}
	resp := &types.RuntimeInfo{Name: Name, Version: version()}
	if len(input) > 0 {
		var a anypb.Any
		if err := proto.Unmarshal(input, &a); err != nil {
			return nil, fmt.Errorf("runtime options on stdin: %w", err)
		}
		opts, err := decodeOptions(&a)
		if err != nil {
			return nil, err
		}
		if resp.Options, err = marshalAny(opts); err != nil {
			return nil, err
		}
	}
	features, err := json.Marshal(runtime.Features())
	if err != nil {
		return nil, fmt.Errorf("runtime features: %w", err)
	}
	resp.Features = &anypb.Any{TypeUrl: featuresType, Value: features}
	return proto.Marshal(resp)
}

// version is what the linker or the module system knows about this build.
func version() *types.RuntimeVersion {
	v := &types.RuntimeVersion{Version: Version}
	build, ok := debug.ReadBuildInfo()
	if !ok {
		return v
	}
	if v.Version == "" {
		v.Version = build.Main.Version
	}
	for _, s := range build.Settings {
		if s.Key == "vcs.revision" {
			v.Revision = s.Value
		}
	}
	return v
}

// Version can be set by the linker (-X); the module's version otherwise.
var Version string
