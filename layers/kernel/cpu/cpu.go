// SPDX-License-Identifier: Apache-2.0

// Package cpu exports and imports what a thread has in the processor: general
// registers, segment bases, and the extended state as XSAVE lays it out.
//
// Registers are exported as another thread can take them over: a system call
// that was interrupted by our stop alone is made again, a restartable sequence
// that was under way begins anew. They are the last thing an import sets.
package cpu

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"
	"sync/atomic"

	"google.golang.org/protobuf/proto"

	"github.com/io-mig/mig/layers/kernel/target"
	"github.com/io-mig/mig/layers/kernel/tracer"
	"github.com/io-mig/mig/spec/arch/amd64"
	"github.com/io-mig/mig/spec/record"
	"github.com/io-mig/mig/spec/state"
)

// Name is what the subsystem's records are called by.
const Name = "cpu"

// Kinds of records.
const (
	// KindLayout: state.XSaveLayout, shared, entity 0.
	KindLayout = 1
	// KindThread: state.ThreadCPU, entity is the thread's id. It is taken, but
	// not made any more.
	KindThread = 2
	// KindThreads: state.ThreadsCPU, entity is the first thread's id.
	KindThreads = 3
)

// threadsPerRecord keeps a record below what a medium puts apart.
const threadsPerRecord = 16

// Subsystem is one event's registers.
type Subsystem struct {
	env     target.Env
	threads atomic.Uint64

	mu     sync.Mutex
	layout *amd64.XLayout
	kept   map[record.ProcessID]map[int]*saved
}

// saved is one thread on its way in, in this host's layout.
type saved struct {
	registers amd64.Registers
	xsave     []byte
	// sleep and stopped are state.ThreadCPU's.
	sleep, stopped int64
}

// New makes the subsystem for one event.
func New(env target.Env) *Subsystem {
	return &Subsystem{env: env, kept: map[record.ProcessID]map[int]*saved{}}
}

// Name of the subsystem.
func (s *Subsystem) Name() string { return Name }

// Keeps reports that nothing is done before the stages without records.
func (s *Subsystem) Keeps() bool { return true }

// Status counts threads.
func (s *Subsystem) Status() record.Status { return record.Status{Entities: s.threads.Load()} }

// Fault cannot be served: registers exist once.
func (s *Subsystem) Fault(_ context.Context, f record.Fault) error {
	return fmt.Errorf("cpu: %s: no second copy to recover it from: %w", f.Header, errors.ErrUnsupported)
}

// Dump lists the instruction pointers that are known.
func (s *Subsystem) Dump(w io.Writer) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for id, threads := range s.kept {
		for tid, t := range threads {
			fmt.Fprintf(w, "process %d thread %d: rip %#x rsp %#x rax %#x\n", id, tid, t.registers.Rip, t.registers.Rsp, t.registers.Rax)
		}
	}
	return nil
}

// Checkpoint exports the layout once and every thread's registers.
func (s *Subsystem) Checkpoint(ctx context.Context, step record.Step, out record.Sink) (record.Progress, error) {
	if step.Stage != record.StageResidual {
		return record.Progress{Done: true}, nil
	}
	if step.Process == record.Shared {
		return record.Progress{Done: true, Advanced: true}, exportLayout(ctx, out)
	}
	p, err := s.env.Source.Stopped(step.Process)
	if err != nil {
		return record.Progress{}, fmt.Errorf("cpu: %w", err)
	}
	var all []*state.ThreadCPU
	err = p.Traced.Do(func() error {
		for _, th := range p.Traced.Threads() {
			m, err := export(p, th)
			if err != nil {
				return fmt.Errorf("cpu: pid %d: %w", p.Pid, err)
			}
			all = append(all, m)
		}
		return nil
	})
	if err != nil {
		return record.Progress{}, err
	}
	for part := range slices.Chunk(all, threadsPerRecord) {
		if err := push(ctx, out, p.ID, part); err != nil {
			return record.Progress{}, err
		}
	}
	s.threads.Add(uint64(len(all)))
	return record.Progress{Done: true, Advanced: true, Entities: uint64(len(all))}, nil
}

func push(ctx context.Context, out record.Sink, id record.ProcessID, threads []*state.ThreadCPU) error {
	b, err := proto.Marshal(&state.ThreadsCPU{Thread: threads})
	if err != nil {
		return fmt.Errorf("cpu: %w", err)
	}
	h := record.Header{Subsystem: Name, Process: id, Kind: KindThreads, Entity: uint64(threads[0].Tid)}
	return out.Push(ctx, &record.Record{Header: h, Payload: b})
}

func exportLayout(ctx context.Context, out record.Sink) error {
	l := tracer.HostXSave()
	m := &state.XSaveLayout{Features: l.Features}
	for _, c := range l.Components {
		m.Component = append(m.Component, &state.XSaveComponent{Bit: uint32(c.Bit), Offset: c.Offset, Size: c.Size})
	}
	b, err := proto.Marshal(m)
	if err != nil {
		return fmt.Errorf("cpu: %w", err)
	}
	return out.Push(ctx, &record.Record{Header: record.Header{Subsystem: Name, Kind: KindLayout}, Payload: b})
}

func export(p *target.Process, th *tracer.Thread) (*state.ThreadCPU, error) {
	regs, kind, err := th.ResumeRegisters()
	if err != nil {
		return nil, err
	}
	m := &state.ThreadCPU{Tid: int32(th.NSTid)}
	if kind == tracer.RestartTimeout {
		if err := exportSleep(p, &regs, m); err != nil {
			return nil, err
		}
	}
	if m.Xsave, err = th.XState(); err != nil {
		return nil, err
	}
	m.Registers, err = regs.MarshalBinary()
	return m, err
}
