// SPDX-License-Identifier: Apache-2.0

package task

import (
	"encoding/binary"
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/io-mig/mig/layers/kernel/target"
	"github.com/io-mig/mig/layers/kernel/tracer"
)

// cloneFlags are those of a POSIX thread, but for what the thread sets itself
// later and what it may have of its own (birth); CLONE_PTRACE makes it stop before
// its first instruction.
const cloneFlags = unix.CLONE_VM | unix.CLONE_SIGHAND | unix.CLONE_THREAD | unix.CLONE_SYSVSEM | unix.CLONE_PTRACE

// cloneArgsSize is the size of struct clone_args with set_tid (CLONE_ARGS_SIZE_VER1).
const cloneArgsSize = 80

// apart: there are threads that have not all in common with their process.
func (s *Subsystem) apart() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, k := range s.kept {
		if len(k.groups) > 0 {
			return true
		}
	}
	return false
}

// join makes every thread but the leader, with the ids they had; where the image
// has none, it is there until all else that is the threads' own is done.
func join(t *target.Task, k *saved) error {
	if k.joined {
		return nil
	}
	births, err := birthsOf(k.threads, k.groups, int(k.process.Pid))
	if err != nil {
		return err
	}
	for len(births) > 0 {
		n := 1 // as many as the same one makes
		for n < len(births) && births[n].by == births[0].by {
			n++
		}
		if err := makeThreads(t, births[:n]); err != nil {
			return err
		}
		births = births[n:]
	}
	for _, g := range k.groups {
		t.Apart = append(t.Apart, target.Apart{Tid: int(g.Tid), Directories: int(g.Directories), Table: int(g.Table)})
	}
	k.joined = true
	return t.SeparateTables()
}

// makeThreads has one thread make others.
func makeThreads(t *target.Task, births []birth) error {
	maker := t.Traced.Leader()
	if by := births[0].by; by != 0 {
		maker = t.Threads[by]
	}
	sc, err := t.Traced.Scratch()
	if err != nil {
		return err
	}
	defer sc.Release(sc.Mark())
	const each = cloneArgsSize + 16
	b := make([]byte, each*len(births))
	at, err := sc.Put(b)
	if err != nil {
		return err
	}
	calls := make([]tracer.Call, len(births))
	tids := make([]int, len(births))
	for i, n := range births {
		a := b[each*i:]
		addr := at + uint64(each*i)
		binary.LittleEndian.PutUint64(a, n.flags())
		binary.LittleEndian.PutUint64(a[64:], addr+cloneArgsSize) // set_tid
		binary.LittleEndian.PutUint64(a[72:], 1)                  // set_tid_size
		binary.LittleEndian.PutUint32(a[cloneArgsSize:], uint32(n.tid))
		calls[i] = tracer.Syscall(unix.SYS_CLONE3, addr, cloneArgsSize)
		tids[i] = n.tid
	}
	if err := t.Traced.Write(at, b); err != nil {
		return err
	}
	if err := t.Traced.Run(maker, calls); err != nil {
		return err
	}
	for i := range calls {
		if err := calls[i].Errno(); err != nil {
			return fmt.Errorf("make thread %d: %w", tids[i], err)
		}
	}
	threads, err := t.Traced.AdoptThreads(tids)
	if err != nil {
		return fmt.Errorf("take in %d threads: %w", len(tids), err)
	}
	for i, th := range threads {
		t.Threads[tids[i]] = th
	}
	return nil
}

// flags of clone(2).
func (b birth) flags() uint64 {
	flags := uint64(cloneFlags)
	if b.directories {
		flags |= unix.CLONE_FS
	}
	if b.table {
		flags |= unix.CLONE_FILES
	}
	return flags
}
