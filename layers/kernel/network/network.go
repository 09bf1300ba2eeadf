// SPDX-License-Identifier: Apache-2.0

// Package network exports and imports what a container's own network namespace
// holds: interfaces (veth, macvlan, dummy, lo), addresses, routes, rules,
// neighbours, queueing disciplines, settings of /proc/sys/net, and the rules of
// nf_tables and iptables. Mechanism is package netns.
//
// An import makes interfaces again only as the live request says (package
// spec/network): a move's request lists them with their addresses and what of the
// host they are tied to, and an image that has others is refused. Interfaces that
// somebody has made before the import (CNI) are left as they are; what lies on
// them is added. Everything else of an image stays within the namespace.
//
// The destination of a move asks for the namespace and builds it before the
// source is stopped (Prepare), and compares at the switch. Until the commit
// nothing comes in or goes out: the outer end of a veth is no port of its bridge,
// a macvlan is silenced. At the commit (Frame.AtCommit) that ends, and addresses
// are announced. Whoever silences the source does it before.
//
//	source       serves ................... frozen | killed
//	destination  built, cut off ......... compared | tied, announced
//
// What is not carried: interfaces of other kinds, tc filters, routes that
// encapsulate, the expectations and entries of connection tracking.
package network

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"sync/atomic"

	"google.golang.org/protobuf/proto"

	"github.com/io-mig/mig/layers/kernel/netns"
	"github.com/io-mig/mig/layers/kernel/procfs"
	"github.com/io-mig/mig/layers/kernel/target"
	"github.com/io-mig/mig/spec/network"
	"github.com/io-mig/mig/spec/record"
	"github.com/io-mig/mig/spec/state"
)

// Name is what the subsystem's records are called by.
const Name = "network"

// KindNetwork is the one kind of record: state.Network, shared, entity 0. It may
// come several times: the last one counts. KindPart is a piece of its encoding
// that another follows.
const (
	KindNetwork = 1
	KindPart    = 2
)

// verbDescribe is the command by which a destination asks for the namespace
// before the source is stopped.
const verbDescribe = "describe"

// Subsystem is one event's namespace.
type Subsystem struct {
	env target.Env

	bytes atomic.Uint64

	// asked: the destination has read the settings, and the container cannot
	// change them.
	asked atomic.Bool
	// Of an export that was asked: what tells of changes since, and what silences
	// the interfaces at the switch; nil where there is none. mu guards them.
	mu      sync.Mutex
	watch   *netns.Watch
	silence *netns.Silence
	// original is a handle on the namespace, for when its container has ended.
	original *netns.Handle
	// returned announces it again where it goes on after all.
	returned *netns.Announcer

	// Of an import.
	parts   []byte         // of a record in pieces
	final   *state.Network // what has arrived last, nil if nothing has
	builder *builder       // nil: nothing was built
}

// New makes the subsystem for one event.
func New(env target.Env) *Subsystem { return &Subsystem{env: env} }

// Name of the subsystem.
func (s *Subsystem) Name() string { return Name }

// SharedOnly reports that the namespace is the container's.
func (s *Subsystem) SharedOnly() bool { return true }

// Status counts bytes.
func (s *Subsystem) Status() record.Status { return record.Status{Bytes: s.bytes.Load()} }

// Fault cannot be served: the record exists once.
func (s *Subsystem) Fault(_ context.Context, f record.Fault) error {
	return fmt.Errorf("network: %s: no second copy to recover it from: %w", f.Header, errors.ErrUnsupported)
}

// Dump tells what has arrived.
func (s *Subsystem) Dump(w io.Writer) error {
	if s.final != nil {
		fmt.Fprintf(w, "%s\n", summary(s.final))
	}
	return nil
}

func summary(n *state.Network) string {
	return fmt.Sprintf("%d interfaces, %d addresses, %d routes, %d rules, %d neighbours, %d queueing disciplines, %d settings, %d changes of nf_tables, %d tables",
		len(n.Link), len(n.Address), len(n.Route), len(n.Rule), len(n.Neighbour), len(n.Discipline), len(n.Setting), len(n.Netfilter), len(n.Table))
}

// leaves: the request leaves the namespace to others.
func (s *Subsystem) leaves() bool { return s.env.Options[network.Option] == network.Leave }

// open opens the network namespace of a process.
func open(pid int) (*os.File, error) {
	f, err := os.Open(procfs.Host().Process(pid).Path("ns/net"))
	if err != nil {
		return nil, fmt.Errorf("network namespace of process %d: %w", pid, err)
	}
	return f, nil
}

// inside runs fn in a namespace.
func inside(ns *os.File, fn func() error) error {
	return target.InNamespaceFD(int(ns.Fd()), "net", fn)
}

func marshal(n *state.Network) ([]byte, error) {
	b, err := proto.Marshal(n)
	if err == nil && len(b) > maxEncoded {
		err = fmt.Errorf("the namespace has %d bytes of rules and the like, the limit is %d", len(b), maxEncoded)
	}
	return b, err
}
