// SPDX-License-Identifier: Apache-2.0

package credential

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"

	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/proto"

	"github.com/io-mig/mig/layers/kernel/procfs"
	"github.com/io-mig/mig/layers/kernel/target"
	"github.com/io-mig/mig/layers/kernel/tracer"
	"github.com/io-mig/mig/spec/state"
)

// A thread's filters are a chain that only grows: those that the spec loads are
// the oldest of every thread, inherited from the container's first process or
// loaded for an exec session, and what lies above them is the program's own.
// The own ones are in the image, the spec's are in the frame.

const (
	// maxChain is how many filters a chain can have: MAX_INSNS_PER_PATH of
	// kernel/seccomp.c, where each counts as its instructions and 4 more.
	maxChain, chainPenalty = (1 << 18) / 8, 4
	// maxFilterBytes bounds what a process may bring.
	maxFilterBytes = 64 << 20
)

// errListener marks a filter that asks another process.
var errListener = errors.New("a seccomp filter that hands system calls to a listener (SECCOMP_RET_USER_NOTIF) cannot be loaded again with the listener that has it")

// filterSet numbers the filters of a process by their content: the kernel does
// not say which threads have one and the same.
type filterSet struct {
	numbers map[string]uint32
	list    []*state.SeccompFilter
}

// add returns a filter's number.
func (s *filterSet) add(f tracer.Filter) uint32 {
	key := string(f.Code)
	if f.Log {
		key += "l"
	}
	n, ok := s.numbers[key]
	if !ok {
		if s.numbers == nil {
			s.numbers = map[string]uint32{}
		}
		n = uint32(len(s.list))
		s.numbers[key] = n
		s.list = append(s.list, &state.SeccompFilter{Code: f.Code, Log: f.Log})
	}
	return n
}

// describeFilters reads what the threads have loaded beyond the spec's filters,
// whose number says whether there is anything to read.
func (s *Subsystem) describeFilters(p *target.Process, threads []*state.ThreadCredential) ([]*state.SeccompFilter, error) {
	var set filterSet
	spec := s.env.Source.SeccompFilters
	more := func(m *state.ThreadCredential) bool {
		return int(m.SeccompMode) == procfs.SeccompFilter && int(m.SeccompFilters) > spec
	}
	if !slices.ContainsFunc(threads, more) {
		return nil, nil
	}
	for i, th := range p.Traced.Threads() {
		m := threads[i]
		if !more(m) {
			continue
		}
		filters, err := th.Filters(spec)
		if err != nil {
			return nil, fmt.Errorf("%w (CAP_SYS_ADMIN is needed, and no filter on the engine)", err)
		}
		if len(filters) != int(m.SeccompFilters)-spec {
			return nil, fmt.Errorf("thread %d: %d filters, %d of them of the spec, but %d could be read", m.Tid, m.SeccompFilters, spec, len(filters))
		}
		for _, f := range filters {
			if notifies(f.Code) {
				return nil, fmt.Errorf("thread %d: %w", m.Tid, errListener)
			}
			m.Filter = append(m.Filter, set.add(f))
		}
	}
	return set.list, nil
}

// notifies: a filter can return SECCOMP_RET_USER_NOTIF, as a constant, or as a
// constant that it has loaded before.
func notifies(code []byte) bool {
	const actionFull = 0xffff0000 // SECCOMP_RET_ACTION_FULL
	returnsA, has := false, false
	for ; len(code) >= tracer.SockFilterSize; code = code[tracer.SockFilterSize:] {
		op, k := binary.LittleEndian.Uint16(code), binary.LittleEndian.Uint32(code[4:])
		if op&7 == unix.BPF_RET {
			returnsA = returnsA || op&0x18 == unix.BPF_A
		}
		if k&actionFull == unix.SECCOMP_RET_USER_NOTIF {
			if op == unix.BPF_RET|unix.BPF_K {
				return true
			}
			has = true
		}
	}
	return returnsA && has
}

// addFilter keeps a record of KindFilter.
func (k *saved) addFilter(entity uint64, payload []byte) error {
	m := &state.SeccompFilter{}
	if err := proto.Unmarshal(payload, m); err != nil {
		return fmt.Errorf("%w: %w", errImage, err)
	}
	n := len(m.Code)
	if n == 0 || n%tracer.SockFilterSize != 0 || n > tracer.MaxFilter*tracer.SockFilterSize {
		return fmt.Errorf("%w: a seccomp filter of %d bytes", errImage, n)
	}
	if k.filterBytes += n; k.filterBytes > maxFilterBytes {
		return fmt.Errorf("%w: seccomp filters of more than %d bytes", errImage, maxFilterBytes)
	}
	if notifies(m.Code) {
		return fmt.Errorf("%w: %w", errImage, errListener)
	}
	if entity != uint64(len(k.filters)) {
		return fmt.Errorf("%w: seccomp filter %d behind %d others", errImage, entity, len(k.filters))
	}
	k.filters = append(k.filters, m)
	return nil
}

// validSeccomp checks what no thread can have.
func validSeccomp(m *state.ThreadCredential) error {
	own := len(m.Filter)
	switch int(m.SeccompMode) {
	case procfs.SeccompDisabled, procfs.SeccompStrict:
		if own != 0 || m.SeccompFilters != 0 {
			return fmt.Errorf("%w: thread %d: filters in seccomp mode %d", errImage, m.Tid, m.SeccompMode)
		}
	case procfs.SeccompFilter:
		if own > int(m.SeccompFilters) && own > 0 || m.SeccompFilters > maxChain/(chainPenalty+1) {
			return fmt.Errorf("%w: thread %d: %d seccomp filters, %d of them its own", errImage, m.Tid, m.SeccompFilters, own)
		}
	default:
		return fmt.Errorf("%w: thread %d: seccomp mode %d", errImage, m.Tid, m.SeccompMode)
	}
	return nil
}

// chain checks the filters that a thread names.
func (k *saved) chain(m *state.ThreadCredential) error {
	sum := 0
	for _, n := range m.Filter {
		if n >= uint32(len(k.filters)) {
			return fmt.Errorf("%w: thread %d: seccomp filter %d of %d", errImage, m.Tid, n, len(k.filters))
		}
		if sum += len(k.filters[n].Code)/tracer.SockFilterSize + chainPenalty; sum > maxChain+chainPenalty {
			return fmt.Errorf("%w: thread %d: seccomp filters of more than %d instructions", errImage, m.Tid, maxChain)
		}
	}
	return nil
}

// beneath is what a thread had of the spec: its mode and filters without its
// own.
func beneath(m *state.ThreadCredential) (mode, filters int) {
	mode, filters = int(m.SeccompMode), int(m.SeccompFilters)-len(m.Filter)
	if mode == procfs.SeccompStrict || len(m.Filter) > 0 && filters == 0 {
		mode = procfs.SeccompDisabled
	}
	return mode, filters
}

// common are the filters that all threads have below those of their own.
func (k *saved) common() []uint32 {
	out := k.threads[0].Filter
	for _, m := range k.threads[1:] {
		n := 0
		for n < len(out) && n < len(m.Filter) && out[n] == m.Filter[n] {
			n++
		}
		out = out[:n]
	}
	return out
}

// loadCommon loads what all threads have while the process has one thread: the
// others inherit it, so that they have one and the same, which
// SECCOMP_FILTER_FLAG_TSYNC asks for. Nothing is filtered while the engine
// traces the task, and CAP_SYS_ADMIN is what loading needs where
// no_new_privs was not set.
func loadCommon(t *target.Task, k *saved) error {
	list := k.common()
	if len(list) == 0 || t.Doomed() != nil { // it must be able to end
		return nil
	}
	sc, err := t.Traced.Scratch()
	if err != nil {
		return err
	}
	defer sc.Release(sc.Mark())
	calls, err := k.loads(list, map[uint32]uint64{}, sc.Put)
	if err != nil {
		return err
	}
	k.loaded = len(list)
	return t.Run(calls)
}

// loads are the calls that load filters. at holds where those are that put has
// put into the task's memory before.
func (k *saved) loads(list []uint32, at map[uint32]uint64, put func([]byte) (uint64, error)) ([]tracer.Call, error) {
	var calls []tracer.Call
	for _, n := range list {
		f := k.filters[n]
		prog, ok := at[n]
		if !ok {
			code, err := put(f.Code)
			if err != nil {
				return nil, err
			}
			b := binary.LittleEndian.AppendUint64(nil, uint64(len(f.Code)/tracer.SockFilterSize)) // struct sock_fprog
			if prog, err = put(binary.LittleEndian.AppendUint64(b, code)); err != nil {
				return nil, err
			}
			at[n] = prog
		}
		// Speculation is a setting of its own, which the thread has already or gets.
		flags := uint64(unix.SECCOMP_FILTER_FLAG_SPEC_ALLOW)
		if f.Log {
			flags |= unix.SECCOMP_FILTER_FLAG_LOG
		}
		calls = append(calls, tracer.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, flags, prog))
	}
	return calls, nil
}
