// SPDX-License-Identifier: Apache-2.0

// Package summary adds up what an image holds: records and bytes by subsystem,
// by process and by mapping. It needs nothing of the machine that made the
// image, so any machine can describe any image.
package summary

import (
	"encoding/binary"
	"fmt"
	"sort"

	"google.golang.org/protobuf/proto"

	"github.com/io-mig/mig/spec/record"
	"github.com/io-mig/mig/spec/state"
)

// Count is a number of records and the bytes of their payloads.
type Count struct {
	Records uint64 `json:"records"`
	Bytes   uint64 `json:"bytes"`
}

func (c *Count) add(r *record.Record) {
	c.Records++
	c.Bytes += uint64(len(r.Payload))
}

// Mapping is one range of a process's address space and how much of it the
// image holds.
type Mapping struct {
	Start  uint64 `json:"start"`
	Length uint64 `json:"length"`
	// Permissions as in /proc/PID/maps, "rw-p".
	Permissions string `json:"permissions"`
	Path        string `json:"path,omitempty"`
	// Bytes of pages in the image; a page that was copied in early rounds and written
	// to afterwards is there more than once.
	Bytes uint64 `json:"bytes"`
}

// Process is one process of the image.
type Process struct {
	ID         record.ProcessID  `json:"id"`
	Pid        int32             `json:"pid"`
	Name       string            `json:"name"`
	Executable string            `json:"executable"`
	Threads    uint32            `json:"threads"`
	Subsystems map[string]*Count `json:"subsystems"`
	Mappings   []Mapping         `json:"mappings,omitempty"`
	// FDs is the number of descriptors, in its table and those that threads have of
	// their own.
	FDs int `json:"descriptors"`

	// before are the mappings of the last early round while those that take their
	// place are read.
	before map[span]uint64
}

// span is a mapping's place.
type span struct{ start, length uint64 }

// Image is the sum.
type Image struct {
	Total     Count             `json:"total"`
	Shared    map[string]*Count `json:"shared"`
	Processes []*Process        `json:"processes"`

	byID map[record.ProcessID]*Process
}

// maxProcesses bounds what a hostile image can make a summary hold.
const maxProcesses = 1 << 16

// Kinds that the summary looks into. They are part of the format, as the
// subsystems' packages document it.
const (
	memoryAddressSpace, memoryMappings, memoryPages, memoryScattered = 1, 2, 3, 4
	taskProcess, taskThreads                                         = 1, 2
	fileTable, fileThreadTable                                       = 1, 7
)

// Add takes one record of the stream, in order. The payload is not kept.
func (im *Image) Add(r *record.Record) error {
	im.Total.add(r)
	if r.Process == record.Shared {
		if im.Shared == nil {
			im.Shared = map[string]*Count{}
		}
		count(im.Shared, r)
		return nil
	}
	p, err := im.process(r.Process)
	if err != nil {
		return err
	}
	count(p.Subsystems, r)
	if err := p.look(r); err != nil {
		return fmt.Errorf("%s: %w", r.Header, err)
	}
	return nil
}

func count(m map[string]*Count, r *record.Record) {
	c := m[r.Subsystem]
	if c == nil {
		c = &Count{}
		m[r.Subsystem] = c
	}
	c.add(r)
}

func (im *Image) process(id record.ProcessID) (*Process, error) {
	if p := im.byID[id]; p != nil {
		return p, nil
	}
	if len(im.Processes) == maxProcesses {
		return nil, fmt.Errorf("the image has more than %d processes", maxProcesses)
	}
	if im.byID == nil {
		im.byID = map[record.ProcessID]*Process{}
	}
	p := &Process{ID: id, Subsystems: map[string]*Count{}}
	im.byID[id] = p
	im.Processes = append(im.Processes, p)
	return p, nil
}

// look decodes the records that say something about the process as a whole.
// Kinds that it does not know are counted all the same.
func (p *Process) look(r *record.Record) error {
	switch {
	case r.Subsystem == "memory":
		return p.memory(r)
	case r.Subsystem == "task" && r.Kind == taskProcess:
		var m state.Process
		if err := proto.Unmarshal(r.Payload, &m); err != nil {
			return err
		}
		p.Pid, p.Threads = m.Pid, m.Threads
	case r.Subsystem == "task" && r.Kind == taskThreads && p.Name == "":
		var m state.Threads
		if err := proto.Unmarshal(r.Payload, &m); err != nil {
			return err
		}
		if len(m.Thread) > 0 {
			p.Name = string(m.Thread[0].Comm)
		}
	case r.Subsystem == "file" && (r.Kind == fileTable || r.Kind == fileThreadTable):
		var m state.DescriptorTable
		if err := proto.Unmarshal(r.Payload, &m); err != nil {
			return err
		}
		p.FDs += len(m.Slot)
	}
	return nil
}

func (p *Process) memory(r *record.Record) error {
	switch r.Kind {
	case memoryAddressSpace:
		var m state.AddressSpace
		if err := proto.Unmarshal(r.Payload, &m); err != nil {
			return err
		}
		p.Executable = m.Exe
		p.before = map[span]uint64{}
		for _, m := range p.Mappings {
			p.before[span{m.Start, m.Length}] = m.Bytes
		}
		p.Mappings = nil
	case memoryMappings:
		var m state.Mappings
		if err := proto.Unmarshal(r.Payload, &m); err != nil {
			return err
		}
		for _, x := range m.Mapping {
			p.Mappings = append(p.Mappings, Mapping{Start: x.Start, Length: x.Length, Permissions: permissions(x), Path: name(x), Bytes: p.before[span{x.Start, x.Length}]})
		}
	case memoryPages:
		p.addPages(r.Entity, uint64(len(r.Payload)))
	case memoryScattered:
		return p.addScattered(r.Payload)
	}
	return nil
}

// addScattered reads the index of a record of several runs: see the package
// memory, KindScattered.
func (p *Process) addScattered(payload []byte) error {
	const page = 4096
	if len(payload) < page {
		return fmt.Errorf("a record of %d bytes has no index", len(payload))
	}
	n := binary.LittleEndian.Uint64(payload)
	if n > page/16-1 {
		return fmt.Errorf("an index of %d runs", n)
	}
	for i := range n {
		p.addPages(binary.LittleEndian.Uint64(payload[16+16*i:]), binary.LittleEndian.Uint64(payload[24+16*i:]))
	}
	return nil
}

// addPages spreads a run over the mappings that it lies in.
func (p *Process) addPages(start, length uint64) {
	i := sort.Search(len(p.Mappings), func(i int) bool { return p.Mappings[i].Start+p.Mappings[i].Length > start })
	for end := start + length; start < end && i < len(p.Mappings); i++ {
		m := &p.Mappings[i]
		if m.Start >= end {
			return
		}
		from, to := max(start, m.Start), min(end, m.Start+m.Length)
		m.Bytes += to - from
		start = to
	}
}

func permissions(m *state.Mapping) string {
	b := []byte("---p")
	for i, c := range []byte("rwx") {
		if m.Protection&(1<<i) != 0 {
			b[i] = c
		}
	}
	if m.Shared {
		b[3] = 's'
	}
	return string(b)
}

func name(m *state.Mapping) string {
	switch {
	case m.Path != "":
		return m.Path
	case m.Name != "":
		return "[anon:" + m.Name + "]"
	case m.GrowsDown:
		return "[stack]"
	}
	return ""
}
