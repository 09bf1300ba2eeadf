// SPDX-License-Identifier: Apache-2.0

package cgroup

import (
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/io-mig/mig/layers/kernel/target"
	"github.com/io-mig/mig/spec/record"
	"github.com/io-mig/mig/spec/state"
)

func encode(t testing.TB, h *state.Hierarchy) []byte {
	t.Helper()
	b, err := proto.Marshal(h)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// one is a hierarchy of version 1 with one cgroup.
func one(c *state.Cgroup) *state.Hierarchy {
	if c.Name == nil {
		c.Name = []byte("a")
	}
	return &state.Hierarchy{Controller: []string{"pids"}, Cgroup: []*state.Cgroup{c}}
}

func good() *state.Hierarchy {
	return &state.Hierarchy{SubtreeControl: []string{"pids"}, Cgroup: []*state.Cgroup{
		{Name: []byte("a b"), SubtreeControl: []string{"pids"}, Setting: []*state.CgroupSetting{{Name: "pids.max", Value: []byte("7")}, {Name: "hugetlb.2MB.max", Value: []byte("0")}}},
		{Parent: 1, Name: []byte("c"), Threaded: true, File: []*state.CgroupFile{{Mode: 0o755}, {Name: "cgroup.procs", Uid: 1000, Mode: 0o644}}, Member: []*state.CgroupMember{{Process: 1, Tid: 7}}},
	}}
}

// chain is a path of so many levels.
func chain(levels int) *state.Hierarchy {
	h := &state.Hierarchy{}
	for i := range levels {
		h.Cgroup = append(h.Cgroup, &state.Cgroup{Parent: uint32(i), Name: []byte("a")})
	}
	return h
}

func TestHostileCgroupsAreRefused(t *testing.T) {
	for what, h := range map[string]*state.Hierarchy{"two levels": good(), "as deep as may be": chain(maxDepth), "nothing": {}} {
		if _, err := decode(encode(t, h)); err != nil {
			t.Errorf("%s: %v", what, err)
		}
	}
	setting := func(name, value string) *state.Hierarchy {
		return one(&state.Cgroup{Setting: []*state.CgroupSetting{{Name: name, Value: []byte(value)}}})
	}
	many := &state.Hierarchy{}
	for range maxCgroups + 1 {
		many.Cgroup = append(many.Cgroup, &state.Cgroup{Name: []byte("a")})
	}
	for what, h := range map[string]*state.Hierarchy{
		"up":                      one(&state.Cgroup{Name: []byte("..")}),
		"here":                    one(&state.Cgroup{Name: []byte(".")}),
		"no name":                 one(&state.Cgroup{Name: []byte{}}),
		"a path":                  one(&state.Cgroup{Name: []byte("a/../../b")}),
		"a line":                  one(&state.Cgroup{Name: []byte("a\nb")}),
		"a zero byte":             one(&state.Cgroup{Name: []byte("a\x00")}),
		"a long name":             one(&state.Cgroup{Name: []byte(strings.Repeat("a", maxName+1))}),
		"its own parent":          one(&state.Cgroup{Parent: 1}),
		"too deep":                chain(maxDepth + 1),
		"too many":                many,
		"unknown setting":         setting("release_agent", "/evil"),
		"setting of another file": setting("cgroup.procs", "1"),
		"setting by a path":       setting("hugetlb.../../x/B.max", "1"),
		"setting that is lost":    setting("io.max", "8:0 rbps=1"),
		"long setting":            setting("pids.max", strings.Repeat("1", maxValue+1)),
		"setting of bytes":        setting("pids.max", "1\x00"),
		"file by a path":          one(&state.Cgroup{File: []*state.CgroupFile{{Name: "../../tasks"}}}),
		"set-id bit":              one(&state.Cgroup{File: []*state.CgroupFile{{Name: "tasks", Mode: 0o4755}}}),
		"member of none":          one(&state.Cgroup{Member: []*state.CgroupMember{{}}}),
		"thread beyond":           one(&state.Cgroup{Member: []*state.CgroupMember{{Process: 1, Tid: 1<<22 + 1}}}),
		"threaded version 1":      one(&state.Cgroup{Threaded: true}),
		"controller":              {Controller: []string{"../x"}},
		"subtree":                 {SubtreeControl: []string{"pids -memory"}},
	} {
		if _, err := decode(encode(t, h)); err == nil {
			t.Errorf("%s: accepted", what)
		}
	}
	if _, err := decode([]byte{0xff}); err == nil {
		t.Error("garbage: accepted")
	}
}

// TestRecordsComeInTurn: and nothing is taken for a host without such a hierarchy,
// or a container that may not make cgroups.
func TestRecordsComeInTurn(t *testing.T) {
	s := New(target.Env{Frame: &target.Frame{Init: 1}})
	for what, h := range map[string]record.Header{
		"kind":        {Kind: KindHierarchy + 1},
		"a process's": {Kind: KindHierarchy, Process: 1},
		"number":      {Kind: KindHierarchy, Entity: 1},
	} {
		if err := s.receive(&record.Record{Header: h, Payload: encode(t, good())}); err == nil || !strings.Contains(err.Error(), "turn") {
			t.Errorf("%s: %v", what, err)
		}
	}
	err := s.receive(&record.Record{Header: record.Header{Kind: KindHierarchy}, Payload: encode(t, good())})
	if err == nil || !strings.Contains(err.Error(), "on this host there is none") {
		t.Errorf("no such hierarchy: %v", err)
	}
}

func FuzzDecode(f *testing.F) {
	f.Add(encode(f, good()))
	f.Add(encode(f, chain(maxDepth)))
	f.Fuzz(func(t *testing.T, payload []byte) {
		h, err := decode(payload)
		if err != nil {
			return
		}
		for i, c := range h.Cgroup {
			if int(c.Parent) > i || strings.ContainsAny(string(c.Name), "/\n") || string(c.Name) == ".." {
				t.Fatalf("%v", c)
			}
		}
	})
}
