// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"strconv"
	"strings"

	"google.golang.org/protobuf/proto"

	"github.com/io-mig/mig/spec/image"
	"github.com/io-mig/mig/spec/record"
	"github.com/io-mig/mig/spec/state"
)

// messages are the payloads that are protobuf, as spec/state/*.proto say.
var messages = map[string]proto.Message{
	"memory/1": &state.AddressSpace{}, "memory/2": &state.Mappings{},
	"task/1": &state.Process{}, "task/2": &state.Threads{},
	"file/1": &state.DescriptorTable{}, "file/2": &state.WorkingFiles{}, "file/3": &state.OpenFile{}, "file/4": &state.FileObject{},
	"task/6": &state.ThreadGroups{}, "file/7": &state.DescriptorTable{},
	"cpu/1": &state.XSaveLayout{}, "cpu/3": &state.ThreadsCPU{},
	"signal/1": &state.ProcessSignals{}, "signal/2": &state.ThreadSignals{},
	"credential/1": &state.ProcessLimits{}, "credential/2": &state.ThreadCredentials{},
}

// edit is one change of the records of one kind.
type edit struct {
	text string
	key  string // SUBSYSTEM/KIND, or "manifest" or "subsystem"
	// path and value of a field, or verb and value.
	path, verb, value string
	used              bool
}

type edits struct{ all []*edit }

func parse(texts []string) (*edits, error) {
	es := &edits{}
	for _, text := range texts {
		e := &edit{text: text}
		at := strings.IndexAny(text, ".!")
		if at < 0 {
			return nil, fmt.Errorf("edit %q names neither a field nor a verb", text)
		}
		e.key = text[:at]
		rest, value, _ := strings.Cut(text[at+1:], "=")
		e.value = value
		if text[at] == '.' {
			e.path = rest
		} else {
			e.verb = rest
		}
		es.all = append(es.all, e)
	}
	return es, nil
}

// unused names edits that met no record: the test would prove nothing.
func (es *edits) unused() error {
	var errs []error
	for _, e := range es.all {
		if !e.used {
			errs = append(errs, fmt.Errorf("edit %q changed nothing", e.text))
		}
	}
	return errors.Join(errs...)
}

func (es *edits) manifest(m *image.Manifest) error {
	for _, e := range es.all {
		switch e.key {
		case "manifest":
			m.CPUFeatures = append(m.CPUFeatures[:len(m.CPUFeatures):len(m.CPUFeatures)], e.path)
		case "subsystem":
			m.Subsystems = append(m.Subsystems[:len(m.Subsystems):len(m.Subsystems)], image.Subsystem{Name: e.path, Version: 1})
		default:
			continue
		}
		e.used = true
	}
	return nil
}

// apply returns what takes the place of a record.
func (es *edits) apply(r *record.Record) ([]*record.Record, error) {
	out := []*record.Record{r}
	key := fmt.Sprintf("%s/%d", r.Subsystem, r.Kind)
	for _, e := range es.all {
		if e.key != key {
			continue
		}
		first := !e.used
		e.used = true
		switch e.verb {
		case "":
			if err := e.field(r); err != nil {
				return nil, fmt.Errorf("%s: %w", e.text, err)
			}
		case "drop":
			return nil, nil
		case "twice":
			out = append(out, r)
		case "raw":
			r.Payload = []byte(e.value)
		case "insert":
			if first {
				h := r.Header
				out = append([]*record.Record{{Header: h, Payload: []byte(e.value)}}, out...)
			}
		case "entity", "process":
			n, err := strconv.ParseUint(e.value, 0, 64)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", e.text, err)
			}
			if e.verb == "entity" {
				r.Entity = n
			} else {
				r.Process = record.ProcessID(n)
			}
		default:
			return nil, fmt.Errorf("%s: unknown verb %q", e.text, e.verb)
		}
	}
	return out, nil
}

func (e *edit) field(r *record.Record) error {
	kind, ok := messages[e.key]
	if !ok {
		return fmt.Errorf("the payload of %s is no message that is known here", e.key)
	}
	m := proto.Clone(kind)
	if err := proto.Unmarshal(r.Payload, m); err != nil {
		return err
	}
	if err := set(m.ProtoReflect(), e.path, e.value); err != nil {
		return err
	}
	b, err := proto.Marshal(m)
	if err != nil {
		return err
	}
	r.Payload = b
	return nil
}
