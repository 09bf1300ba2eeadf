// SPDX-License-Identifier: Apache-2.0

package memory

import (
	"crypto/sha256"
	"os"
	"sync"

	"github.com/io-mig/mig/layers/kernel/procfs"
	"github.com/io-mig/mig/spec/state"
)

// ownVDSO is the code of the engine's vDSO, which every process of this kernel
// has; nil if the engine has none.
var ownVDSO = sync.OnceValue(func() []byte {
	self := procfs.Host().Process(os.Getpid())
	maps, err := self.Maps()
	if err != nil {
		return nil
	}
	mem, err := os.Open(self.Path("mem"))
	if err != nil {
		return nil
	}
	defer mem.Close()
	for _, m := range maps {
		if m.Kind != procfs.MapVDSO {
			continue
		}
		code := make([]byte, m.Len())
		if _, err := mem.ReadAt(code, int64(m.Start)); err != nil {
			return nil
		}
		return code
	}
	return nil
})

// addOwnVDSO notes where a running process has the vDSO, without reading it.
func addOwnVDSO(space *state.AddressSpace, smaps []procfs.SmapsMapping) {
	for i := range smaps {
		switch smaps[i].Kind {
		case procfs.MapVVar, procfs.MapVVarVClock, procfs.MapVDSO:
			if addVDSO(space, &smaps[i], func(uint64, []byte) error { return nil }) != nil {
				space.VdsoStart, space.VdsoLength, space.VdsoSha256, space.VdsoCode = 0, 0, nil, nil
				return
			}
		}
	}
	code := ownVDSO()
	if len(code) == 0 || len(space.VdsoCode) != len(code) {
		// Between two programs, an exec's, there is none; what a program has left
		// of it comes when it is stopped.
		space.VdsoStart, space.VdsoLength, space.VdsoSha256, space.VdsoCode = 0, 0, nil, nil
		return
	}
	space.VdsoCode = code
	sum := sha256.Sum256(space.VdsoCode)
	space.VdsoSha256 = sum[:]
}

// vdsoOnce leaves the code out where it is in the image already.
func (s *Subsystem) vdsoOnce(space *state.AddressSpace) {
	s.mu.Lock()
	defer s.mu.Unlock()
	key := string(space.VdsoSha256)
	if s.vdsos[key] != nil {
		space.VdsoCode = nil
		return
	}
	s.vdsos[key] = space.VdsoCode
}
