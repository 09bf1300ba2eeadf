// SPDX-License-Identifier: Apache-2.0

package target

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/io-mig/mig/layers/kernel/procfs"
	"github.com/io-mig/mig/layers/kernel/tracer"
)

// hugeGroup is the file with the group, of the initial user namespace, whose members
// may make System V shared memory of huge pages (Documentation/admin-guide/sysctl/vm.rst).
const hugeGroup = "/proc/sys/vm/hugetlb_shm_group"

// HugeRight is what lets a process make System V shared memory of huge pages
// (fs/hugetlbfs/inode.c, can_do_hugetlb_shm): CAP_IPC_LOCK in the initial user
// namespace, or the group. (To earlier kernels RLIMIT_MEMLOCK was enough, which here it
// is not.)
type HugeRight struct {
	byGroup bool
	group   uint32 // as the container numbers groups
}

// ErrNoHugeRight says that the live spec gives a container no right to make System V shared
// memory of huge pages.
var ErrNoHugeRight = errors.New("the container's specification lets it make no System V shared memory of huge pages (SHM_HUGETLB): " +
	"give it CAP_IPC_LOCK, without a user namespace, or the group of " + hugeGroup)

// HugeSegments says by what right a process that the live spec starts can make System V
// shared memory of huge pages; the error is ErrNoHugeRight if by none. t is a process
// of the container.
func (a *Allowed) HugeSegments(t procfs.Task) (*HugeRight, error) {
	uids, err := t.UIDMap()
	if err != nil {
		return nil, fmt.Errorf("pid %d: %w", t.Pid(), err)
	}
	if a.Reaches(unix.CAP_IPC_LOCK, uids) {
		return &HugeRight{}, nil
	}
	gids, err := t.GIDMap()
	if err != nil {
		return nil, fmt.Errorf("pid %d: %w", t.Pid(), err)
	}
	b, err := os.ReadFile(hugeGroup)
	if err != nil {
		return nil, err
	}
	host, err := strconv.ParseUint(strings.TrimSpace(string(b)), 10, 32)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", hugeGroup, err)
	}
	return a.hugeByGroup(gids, uint32(host))
}

// hugeByGroup is the right of a group of the host, which the container's user
// namespace may lack.
func (a *Allowed) hugeByGroup(gids []procfs.IDMap, host uint32) (*HugeRight, error) {
	for _, m := range gids {
		if host < m.Outside || host-m.Outside >= m.Count {
			continue
		}
		group := m.Inside + (host - m.Outside)
		if group == a.GID || slices.Contains(a.Groups, group) || a.CanReach(unix.CAP_SETGID) {
			return &HugeRight{true, group}, nil
		}
	}
	return nil, ErrNoHugeRight
}

// UseHugeRight makes the following calls with a right of the live spec and no more,
// until DropHugeRight. It comes behind AsUser, which may take it away.
func (p *Plan) UseHugeRight(r *HugeRight) {
	if !r.byGroup {
		p.capabilities(1 << unix.CAP_IPC_LOCK)
		return
	}
	p.capabilities(1 << unix.CAP_SETGID)
	p.Quiet(tracer.Syscall(unix.SYS_SETFSGID, uint64(r.group)))
	p.Expect(tracer.Syscall(unix.SYS_SETFSGID, uint64(^uint32(0))), int64(r.group))
}

// DropHugeRight ends UseHugeRight. It comes behind AsRoot, which takes the group away.
func (p *Plan) DropHugeRight() { p.capabilities(^uint64(0)) }
