// SPDX-License-Identifier: Apache-2.0

package memory

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/io-mig/mig/layers/kernel/target"
	"github.com/io-mig/mig/layers/kernel/tracer"
	"github.com/io-mig/mig/spec/state"
)

// A mapping may have a memory policy of its own (mbind(2)). Nobody is told but the
// process: /proc/PID/numa_maps shows it, but counts every page on the way.

const (
	// mpolAddress is MPOL_F_ADDR of include/uapi/linux/mempolicy.h.
	mpolAddress = 1 << 1
	// nodeBytes is the size of a set of nodes, as many as Linux can have
	// (MAX_NUMNODES: 1024).
	nodeBytes = 1024 / 8
	// policiesAtOnce bounds the questions of one batch.
	policiesAtOnce = 4096
)

// askPolicies fills the policies of the stopped process's mappings.
func askPolicies(p *target.Process, mappings []*state.Mapping) error {
	for rest := mappings; len(rest) > 0; {
		n := min(len(rest), policiesAtOnce)
		if err := askSome(p, rest[:n]); errors.Is(err, unix.ENOSYS) {
			return nil // a kernel without them
		} else if err != nil {
			return fmt.Errorf("ask for memory policies: %w", err)
		}
		rest = rest[n:]
	}
	return nil
}

// askSome asks for modes, which are all default as a rule, and for the nodes of
// those that are not.
func askSome(p *target.Process, mappings []*state.Mapping) error {
	const word = 8
	calls, b, err := ask(p, mappings, word, func(at uint64) (mode, nodes, most uint64) { return at, 0, 0 })
	if err != nil {
		return err
	}
	var own []*state.Mapping
	for i, m := range mappings {
		if err := calls[i].Errno(); err != nil {
			return fmt.Errorf("mapping %#x: %w", m.Start, err)
		}
		if m.MemoryPolicy = binary.LittleEndian.Uint32(b[i*word:]); m.MemoryPolicy != 0 {
			own = append(own, m)
		}
	}
	if len(own) == 0 {
		return nil
	}
	// One more bit than there are: get_mempolicy(2) counts from 1.
	calls, b, err = ask(p, own, nodeBytes, func(at uint64) (mode, nodes, most uint64) { return 0, at, nodeBytes * 8 })
	if err != nil {
		return err
	}
	for i, m := range own {
		if err := calls[i].Errno(); err != nil {
			return fmt.Errorf("nodes of mapping %#x: %w", m.Start, err)
		}
		m.MemoryNodes = bytes.Clone(bytes.TrimRight(b[i*nodeBytes:][:nodeBytes], "\x00"))
	}
	return nil
}

// ask makes one get_mempolicy(2) for each mapping, each with some bytes of memory.
func ask(p *target.Process, mappings []*state.Mapping, size int, where func(at uint64) (mode, nodes, most uint64)) ([]tracer.Call, []byte, error) {
	sc, err := p.Traced.Scratch()
	if err != nil {
		return nil, nil, err
	}
	defer sc.Release(sc.Mark())
	b := make([]byte, size*len(mappings))
	at, err := sc.Put(b)
	if err != nil {
		return nil, nil, err
	}
	calls := make([]tracer.Call, len(mappings))
	for i, m := range mappings {
		mode, nodes, most := where(at + uint64(size*i))
		calls[i] = tracer.Syscall(unix.SYS_GET_MEMPOLICY, mode, nodes, most, m.Start, mpolAddress)
	}
	if err := p.Traced.Run(p.Traced.Leader(), calls); err != nil {
		return nil, nil, err
	}
	return calls, b, p.Traced.Read(at, b)
}

// setPolicies gives mappings their policies: before pages come, so that they come
// to where they belong, and in the end, as those that come early are not known to
// have one. A host that does not have the nodes leaves its own default.
func setPolicies(t *target.Task, mappings []*state.Mapping) error {
	sc, err := t.Traced.Scratch()
	if err != nil {
		return err
	}
	defer sc.Release(sc.Mark())
	var calls []tracer.Call
	var of []*state.Mapping
	for _, m := range mappings {
		if m.MemoryPolicy == 0 {
			continue
		}
		nodes, err := sc.Put(append(bytes.Clone(m.MemoryNodes), make([]byte, nodeBytes-len(m.MemoryNodes))...))
		if err != nil {
			return err
		}
		calls = append(calls, tracer.Syscall(unix.SYS_MBIND, m.Start, m.Length, uint64(m.MemoryPolicy), nodes, nodeBytes*8, 0))
		of = append(of, m)
	}
	if len(calls) == 0 {
		return nil
	}
	if err := t.Traced.Run(t.Traced.Leader(), calls); err != nil {
		return err
	}
	for i := range calls {
		if err := calls[i].Errno(); err != nil && !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENOSYS) {
			return fmt.Errorf("memory policy %#x of mapping %#x: %w", of[i].MemoryPolicy, of[i].Start, err)
		}
	}
	return nil
}
