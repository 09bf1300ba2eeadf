// SPDX-License-Identifier: Apache-2.0

package ipc

import (
	"errors"
	"fmt"

	"github.com/io-mig/mig/layers/kernel/procfs"
	"github.com/io-mig/mig/layers/kernel/target"
	"github.com/io-mig/mig/spec/record"
)

// refuseHuge names System V shared memory of huge pages that a copy with the same
// specification could not make: somebody outside of the container has, or the
// program had a right that its specification does not give it.
func (s *Subsystem) refuseHuge() ([]record.Finding, error) {
	src := s.env.Source
	if src.Allowed == nil { // nobody has told
		return nil, nil
	}
	list, err := src.HugeSegments()
	if err != nil || len(list) == 0 {
		return nil, err
	}
	_, err = src.Allowed.HugeSegments(procfs.Host().Process(src.Init))
	if !errors.Is(err, target.ErrNoHugeRight) {
		if procfs.IsGone(err) {
			err = nil
		}
		return nil, err
	}
	var out []record.Finding
	for _, g := range list {
		out = append(out, record.Finding{
			Pid: src.Init, FD: -1, Subsystem: Name, What: fmt.Sprintf("%s %d of huge pages (SHM_HUGETLB)", segments.name, g.ID),
			Why:    "a copy could not make it: its specification gives neither CAP_IPC_LOCK in the initial user namespace nor the group of vm.hugetlb_shm_group",
			Remedy: "give it CAP_IPC_LOCK (without a user namespace), or the group",
		})
	}
	return out, nil
}
