// SPDX-License-Identifier: Apache-2.0

package memory

import (
	"context"
	"testing"

	"github.com/io-mig/mig/layers/kernel/procfs"
	"github.com/io-mig/mig/spec/record"
	"github.com/io-mig/mig/spec/state"
)

// TestEarlyLayoutIsValid: whatever part of the vDSO a running process has at the
// moment, as between two programs, an importer takes the layout.
func TestEarlyLayoutIsValid(t *testing.T) {
	const at, data = 0x7ffff7fc0000, 4 * pageSize
	size := uint64(len(ownVDSO()))
	if size == 0 {
		t.Skip("this kernel gives programs no vDSO")
	}
	stack := procfs.SmapsMapping{Mapping: procfs.Mapping{Start: at - 16*pageSize, End: at - 8*pageSize, Kind: procfs.MapStack}}
	vvar := procfs.SmapsMapping{Mapping: procfs.Mapping{Start: at, End: at + data, Kind: procfs.MapVVar}}
	code := procfs.SmapsMapping{Mapping: procfs.Mapping{Start: at + data, End: at + data + size, Kind: procfs.MapVDSO}}
	half, apart := code, code
	half.End -= pageSize
	apart.Start, apart.End = apart.Start+pageSize, apart.End+pageSize
	for name, c := range map[string]struct {
		smaps  []procfs.SmapsMapping
		length uint64
	}{
		"whole":      {[]procfs.SmapsMapping{stack, vvar, code}, data + size},
		"none":       {[]procfs.SmapsMapping{stack}, 0},
		"no mapping": {nil, 0},
		"data only":  {[]procfs.SmapsMapping{stack, vvar}, 0},
		"half":       {[]procfs.SmapsMapping{stack, vvar, half}, 0},
		"apart":      {[]procfs.SmapsMapping{stack, vvar, apart}, 0},
	} {
		t.Run(name, func(t *testing.T) {
			space := &state.AddressSpace{Exe: "/bin/program", Mappings: 1}
			addOwnVDSO(space, c.smaps)
			if space.VdsoLength != c.length || len(space.VdsoCode) != 0 != (c.length != 0) || len(space.VdsoSha256) != 0 != (c.length != 0) {
				t.Errorf("%d bytes, %d of code, digest of %d", space.VdsoLength, len(space.VdsoCode), len(space.VdsoSha256))
			}
			sink := record.SinkFunc(func(_ context.Context, r *record.Record) error {
				return new(layout).receiveSpace(r.Payload)
			})
			if err := pushSpace(t.Context(), 1, space, sink); err != nil {
				t.Error(err)
			}
		})
	}
}
