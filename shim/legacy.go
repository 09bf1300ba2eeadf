// SPDX-License-Identifier: Apache-2.0

package shim

import (
	"fmt"

	"github.com/containerd/containerd/api/types/runc/options"
	"github.com/containerd/errdefs"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/types/known/anypb"
)

// Options of the first shim, which clients up to containerd 1.7 send to every
// runtime they do not know, for instance with a user namespace (containerd 1.6
// runtime/linux/runctypes/runc.proto). No module has these types any more.
const (
	typeLegacyOptions    = "containerd.linux.runc.CreateOptions"
	typeLegacyCheckpoint = "containerd.linux.runc.CheckpointOptions"
)

// legacyOptions decodes the fields that still mean something.
func legacyOptions(a *anypb.Any, opts *options.Options) error {
	for b := a.GetValue(); len(b) > 0; {
		num, typ, n := protowire.ConsumeTag(b)
		if n < 0 {
			return errLegacy(a, n)
		}
		b = b[n:]
		var number uint64
		var text []byte
		switch typ {
		case protowire.VarintType:
			number, n = protowire.ConsumeVarint(b)
		case protowire.BytesType:
			text, n = protowire.ConsumeBytes(b)
		default:
			n = protowire.ConsumeFieldValue(num, typ, b)
		}
		if n < 0 {
			return errLegacy(a, n)
		}
		b = b[n:]
		switch num {
		case 1:
			opts.NoPivotRoot = number != 0
		case 8:
			opts.NoNewKeyring = number != 0
		case 9:
			opts.ShimCgroup = string(text)
		case 10:
			opts.IoUid = uint32(number)
		case 11:
			opts.IoGid = uint32(number)
		}
	}
	return nil
}

func errLegacy(a *anypb.Any, n int) error {
	return fmt.Errorf("decode %s: %w: %w", typeName(a), protowire.ParseError(n), errdefs.ErrInvalidArgument)
}

// legacyCheckpoint: the fields 1 to 7 are today's, and the two paths have
// changed places.
func legacyCheckpoint(a *anypb.Any, opts *options.CheckpointOptions) error {
	if err := unmarshal(a, opts); err != nil {
		return err
	}
	opts.ImagePath, opts.WorkPath = opts.WorkPath, opts.ImagePath
	return nil
}
