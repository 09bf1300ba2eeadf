// SPDX-License-Identifier: Apache-2.0

package network

import (
	"errors"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/io-mig/mig/layers/kernel/kerneltest"
	"github.com/io-mig/mig/layers/kernel/netns"
	"github.com/io-mig/mig/spec/network"
)

// TestUntied: a copy that is given up is on no bridge any more, and what nobody took away
// of a move is found by its name, of no other.
func TestUntied(t *testing.T) {
	kerneltest.InNetwork(t, func() error {
		if err := attach(newNamespace(t), "outer0"); err != nil { // makes the bridge
			return err
		}
		made := map[string]*made{}
		host, err := netns.Open(nil)
		if err != nil {
			return err
		}
		defer host.Close()
		for _, move := range []string{"one", "two"} {
			ns := newNamespace(t)
			b, err := newBuilder(ns, &network.Request{Own: true, Move: move}, nil)
			if err != nil {
				return err
			}
			m := newMade(b)
			if err := b.makeVeth(&netns.Link{Name: "eth0", Kind: netns.KindVeth}, network.Interface{Name: "eth0", Kind: network.Veth, To: "br0"}, m); err != nil {
				return err
			}
			made[move] = m
			master := func(want int) {
				l, err := host.LinkByIndex(m.outer)
				if err != nil || int(l.Master) != want {
					t.Errorf("move %s: its interface is a port of %d, want %d: %v", move, l.Master, want, err)
				}
			}
			master(0)
			if err := b.tie(); err != nil {
				return err
			}
			master(m.bridge)
			if err := b.untie(); err != nil {
				t.Error(err)
			}
			master(0)
		}
		if err := errors.Join(Unplug("one"), Unplug("one"), Unplug("three")); err != nil {
			t.Error(err)
		}
		if _, err := host.LinkByIndex(made["one"].outer); !errors.Is(err, unix.ENODEV) {
			t.Errorf("the interface of the move that was given up: %v", err)
		}
		if _, err := host.LinkByIndex(made["two"].outer); err != nil {
			t.Errorf("that of the other one: %v", err)
		}
		return nil
	})
}

func newMade(b *builder) *made {
	m := &made{}
	b.made["eth0"] = m
	return m
}
