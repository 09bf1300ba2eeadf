// SPDX-License-Identifier: Apache-2.0

package uts

import (
	"testing"

	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/proto"

	"github.com/io-mig/mig/layers/kernel/target"
	"github.com/io-mig/mig/spec/record"
	"github.com/io-mig/mig/spec/state"
)

// TestDifference: only what was changed travels.
func TestDifference(t *testing.T) {
	host := names{"machine", "domain"}
	for _, c := range []struct {
		is, spec     names
		host, domain string
		none         bool
	}{
		{is: names{"machine", "domain"}, none: true},
		{is: names{"web", "domain"}, spec: names{host: "web"}, none: true},
		{is: names{"machine", "domain"}, spec: names{host: "web"}, host: "machine"},
		{is: names{"db", "other"}, spec: names{"web", "example"}, host: "db", domain: "other"},
		{is: names{"machine", ""}, host: "", domain: ""},
	} {
		m := difference(c.is, c.spec, host)
		if (m == nil) != c.none {
			t.Errorf("%+v: %v", c, m)
		} else if m != nil && (string(m.Host) != c.host || string(m.Domain) != c.domain) {
			t.Errorf("%+v: host %q, domain %q", c, m.Host, m.Domain)
		}
	}
	// An empty name is a name.
	if m := difference(names{"machine", ""}, names{}, host); m.Host != nil || m.Domain == nil {
		t.Errorf("%v", m)
	}
}

func pack(t *testing.T, m *state.HostNames) []byte {
	t.Helper()
	b, err := proto.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestHostileNamesAreRefused(t *testing.T) {
	long := make([]byte, maxName+1)
	for what, r := range map[string]*record.Record{
		"long host name":   {Header: record.Header{Kind: KindNames}, Payload: pack(t, &state.HostNames{Host: long})},
		"long domain name": {Header: record.Header{Kind: KindNames}, Payload: pack(t, &state.HostNames{Domain: long})},
		"unknown kind":     {Header: record.Header{Kind: 2}},
		"of a process":     {Header: record.Header{Kind: KindNames, Process: 1}},
		"no protobuf":      {Header: record.Header{Kind: KindNames}, Payload: []byte{0xff}},
	} {
		if err := New(target.Env{}).receive(r); err == nil {
			t.Errorf("%s: accepted", what)
		}
	}
	s := New(target.Env{})
	r := &record.Record{Header: record.Header{Kind: KindNames}, Payload: pack(t, &state.HostNames{Host: []byte("x")})}
	if err := s.receive(r); err != nil {
		t.Fatal(err)
	}
	if err := s.receive(r); err == nil {
		t.Error("accepted twice")
	}
}

// TestHostIsLeftAlone: without a namespace of its own, or the right to do so, an
// image changes no name; and never one of the namespace that the engine is in.
func TestHostIsLeftAlone(t *testing.T) {
	before, err := ownNames()
	if err != nil {
		t.Fatal(err)
	}
	self := unix.Getpid()
	all := target.Allowed{Effective: 1 << unix.CAP_SYS_ADMIN}
	names := &state.HostNames{Host: []byte("taken-over")}
	for what, f := range map[string]*target.Frame{
		"no own namespace": {Init: self, Allowed: all},
		"no capability":    {Init: self, OwnUTS: true},
	} {
		s := New(target.Env{Frame: f})
		s.names = names
		if err := s.set(); err != nil {
			t.Errorf("%s: %v", what, err)
		}
	}
	s := New(target.Env{Frame: &target.Frame{Init: self, OwnUTS: true, Allowed: all}})
	s.names = names
	if err := s.set(); err == nil {
		t.Error("the engine's own namespace was taken for the container's")
	}
	if after, err := ownNames(); err != nil || after != before {
		t.Errorf("the host is called %+v, was %+v: %v", after, before, err)
	}
}
