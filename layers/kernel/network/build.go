// SPDX-License-Identifier: Apache-2.0

package network

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"time"

	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/proto"

	"github.com/io-mig/mig/layers/kernel/netns"
	"github.com/io-mig/mig/spec/network"
	"github.com/io-mig/mig/spec/state"
)

// builder fills a namespace. It may be asked several times: what is there already
// stays.
type builder struct {
	ns       *os.File
	in, host *netns.Handle
	// request is what the live request gives, nil if it does not say; rebuild: it
	// then gives what the image has.
	request *network.Request
	rebuild bool
	mapping network.Mapping
	// made are the interfaces that were made here, by their names in the container.
	made map[string]*made
	// last is what was built last, before numbers were changed.
	last *state.Network
	// settings that the last image with any had.
	settings []*state.NetworkSetting
	// silence is of macvlans, and of what CNI has made, by interface.
	silence  map[string]*netns.Silence
	lost     []string
	announce *netns.Announcer
}

// made is an interface that was made.
type made struct {
	link netns.Link // as it is in the container
	// outer is the number of a veth's other end, bridge that of its bridge, both
	// on the host.
	outer, bridge int
	to            string
	// adopted: CNI has made it, and sees to its end.
	adopted bool
}

func newBuilder(ns *os.File, r *network.Request, m network.Mapping) (*builder, error) {
	b := &builder{ns: ns, request: r, mapping: m, made: map[string]*made{}}
	var err error
	if b.in, err = netns.Open(ns); err != nil {
		return nil, err
	}
	if b.host, err = netns.Open(nil); err != nil {
		return nil, errors.Join(err, b.in.Close())
	}
	return b, nil
}

// build makes the namespace have what n says.
func (b *builder) build(n *state.Network) error {
	if n.AsBefore {
		if b.last == nil {
			return errors.New("nothing has changed since a question that was not asked: defect in mig")
		}
		return nil
	}
	if len(n.Setting) > 0 {
		b.settings = n.Setting
	}
	if b.last != nil && same(b.last, n) {
		return nil
	}
	b.last = proto.CloneOf(n)
	numbers, adopted, err := b.links(n)
	if err != nil {
		return err
	}
	if err := b.asAsked(n); err != nil {
		return err
	}
	if err := b.set(preliminary(n.Link, b.settings)); err != nil {
		return err
	}
	if err := b.raise(n, numbers); err != nil {
		return err
	}
	fields := messages(n)
	for _, c := range []netns.Category{netns.Addresses, netns.Routes, netns.Rules, netns.Neighbours} {
		if err := b.sync(c, *fields[c], numbers, adopted); err != nil {
			return err
		}
		if c == netns.Addresses {
			if err := b.settle(); err != nil {
				return err
			}
		}
	}
	if err := b.shape(n, numbers, adopted); err != nil {
		return err
	}
	if err := b.filter(n); err != nil {
		return err
	}
	if err := b.set(b.settings); err != nil {
		return err
	}
	return b.announcements(n, numbers)
}

// same: nothing has changed since the namespace was built.
func same(was, is *state.Network) bool {
	a, b := proto.CloneOf(was), proto.CloneOf(is)
	if len(b.Setting) == 0 {
		a.Setting = nil
	}
	a.SettingsAsBefore, b.SettingsAsBefore = false, false
	return proto.Equal(a, b)
}

// links makes the interfaces, and returns their numbers by those of the image and
// those that somebody else has made.
func (b *builder) links(n *state.Network) (numbers map[uint32]uint32, adopted map[uint32]bool, err error) {
	list, err := b.in.Links()
	if err != nil {
		return nil, nil, err
	}
	there := map[string]netns.Link{}
	for _, l := range list {
		there[l.Name] = l
	}
	if err := b.remove(n); err != nil {
		return nil, nil, err
	}
	numbers, adopted = map[uint32]uint32{}, map[uint32]bool{}
	for _, m := range n.Link {
		l, ok := there[m.Name]
		if ok && m.Kind == netns.KindCNI {
			if err := b.adopt(m, l); err != nil {
				return nil, nil, err
			}
		}
		if !ok {
			if l, ok, err = b.create(m); err != nil {
				return nil, nil, err
			}
		}
		if !ok {
			b.lose("interface " + m.Name)
			continue
		}
		numbers[m.Index] = uint32(l.Index)
		if (b.made[m.Name] == nil || b.made[m.Name].adopted) && !l.Loopback() {
			adopted[uint32(l.Index)] = true
		}
	}
	return numbers, adopted, nil
}

// remove takes away interfaces that the source has no longer.
func (b *builder) remove(n *state.Network) error {
	for name, m := range b.made {
		if m.adopted {
			continue
		}
		still := false
		for _, l := range n.Link {
			still = still || l.Name == name
		}
		if still {
			continue
		}
		if err := b.in.Delete(m.link.Index); err != nil {
			return fmt.Errorf("remove interface %s: %w", name, err)
		}
		delete(b.made, name)
	}
	return nil
}

func (b *builder) lose(what string) {
	for _, l := range b.lost {
		if l == what {
			return
		}
	}
	b.lost = append(b.lost, what)
}

// given is what the request says of an interface; ok: it is given.
func (b *builder) given(m *state.NetworkLink) (network.Interface, bool, error) {
	if b.request == nil {
		return network.Interface{Name: m.Name, Kind: m.Kind, To: m.To, Outer: m.Outer}, b.rebuild, nil
	}
	g := b.request.Find(m.Name)
	if g == nil || g.Kind != m.Kind || g.MAC != net.HardwareAddr(m.Address).String() {
		return network.Interface{}, false, fmt.Errorf("the image has an interface %s of kind %s with the address %s, which the request does not give", m.Name, m.Kind, net.HardwareAddr(m.Address))
	}
	return *g, true, nil
}

// create makes an interface. ok: it was given, and is there.
func (b *builder) create(m *state.NetworkLink) (l netns.Link, ok bool, err error) {
	g, ok, err := b.given(m)
	if err != nil || !ok {
		return l, false, err
	}
	l = fromMessage(m)
	x := &made{to: g.To}
	switch m.Kind {
	case netns.KindVeth:
		err = b.makeVeth(&l, g, x)
	case netns.KindMacvlan:
		err = b.makeMacvlan(&l, g, x)
	case netns.KindDummy:
		err = again(&l, func() error { return b.host.MakeDummy(b.ns, &l) })
	case netns.KindCNI:
		err = fmt.Errorf("no CNI plug-in has made interface %s", m.Name)
	default:
		err = fmt.Errorf("interface %s is of the kind %s", m.Name, m.Kind)
	}
	if err != nil {
		return l, false, err
	}
	b.made[m.Name] = x // from here on undo removes it
	if l, err = b.in.Link(m.Name); err != nil {
		return l, false, err
	}
	x.link = l
	return l, true, nil
}

// again tries without the number if another interface has it.
func again(l *netns.Link, make func() error) error {
	err := make()
	if errors.Is(err, unix.EEXIST) || errors.Is(err, unix.EBUSY) {
		l.Index = 0
		err = make()
	}
	return err
}

func (b *builder) makeVeth(l *netns.Link, g network.Interface, x *made) error {
	bridge, err := bridgeOf(b.host, g.To)
	if err != nil {
		return fmt.Errorf("interface %s: %w", l.Name, err)
	}
	x.bridge = bridge.Index
	// Another host's containers come here at the same time, and the name is free
	// only until one has taken it.
	for range 10 {
		name, err := b.host.FreeName(g.Outer)
		if err != nil {
			return err
		}
		err = again(l, func() error { return b.host.MakeVeth(b.ns, l, name) })
		if errors.Is(err, unix.EEXIST) {
			continue
		}
		if err != nil {
			return err
		}
		outer, err := b.host.Link(name)
		if err != nil {
			return err
		}
		x.outer = outer.Index
		// No port has an address of its own, and while it is tied to nothing it
		// should say nothing either.
		_, _ = netns.Set([]netns.Setting{{Name: "ipv6/conf/" + name + "/addr_gen_mode", Value: "1"}})
		if b.request != nil && b.request.Move != "" {
			if err := b.host.SetAlias(outer.Index, aliasOf(b.request.Move)); err != nil {
				return fmt.Errorf("mark interface %s: %w", name, err)
			}
		}
		return b.host.SetUp(outer.Index, true)
	}
	return fmt.Errorf("interface %s: no name for its other end is free for long enough", l.Name)
}

// bridgeOf finds a bridge of the host.
func bridgeOf(host *netns.Handle, name string) (netns.Link, error) {
	bridge, err := host.Link(name)
	if errors.Is(err, unix.ENODEV) {
		return bridge, fmt.Errorf("there is no bridge %s on this host", name)
	}
	if err == nil && bridge.Kind != "bridge" {
		err = fmt.Errorf("%s of this host is no bridge", name)
	}
	return bridge, err
}

func (b *builder) makeMacvlan(l *netns.Link, g network.Interface, x *made) error {
	parent, err := b.host.Link(g.To)
	if err != nil {
		return fmt.Errorf("interface %s is to be on %s of this host: %w", l.Name, g.To, err)
	}
	if err := again(l, func() error { return b.host.MakeMacvlan(b.ns, l, parent.Index) }); err != nil {
		return err
	}
	return b.silent(l.Name) // it is down: nothing has passed before
}

// silent silences an interface until the commit.
func (b *builder) silent(name string) error {
	if b.silence[name] != nil {
		return nil
	}
	s, err := netns.NewSilence(b.ns, []string{name})
	if err != nil {
		return err
	}
	if b.silence == nil {
		b.silence = map[string]*netns.Silence{}
	}
	b.silence[name] = s
	return s.Begin()
}

// adopt takes an interface that CNI has made for the container: it is silent until
// the commit, has the hardware address that neighbours know, and the addresses
// that were asked for.
func (b *builder) adopt(m *state.NetworkLink, l netns.Link) error {
	if b.made[m.Name] != nil {
		return nil
	}
	if b.request == nil {
		return nil // an image's, which has nothing to say of it
	}
	if g := b.request.Find(m.Name); g == nil || g.Kind != m.Kind {
		return fmt.Errorf("the image has an interface %s of a CNI network, which the request does not give", m.Name)
	}
	if err := b.silent(m.Name); err != nil {
		return err
	}
	if !bytes.Equal(l.Address, m.Address) && len(m.Address) > 0 {
		if err := b.in.SetAddress(l.Index, m.Address); err != nil {
			b.lose("hardware address of interface " + m.Name)
		}
	}
	b.made[m.Name] = &made{link: l, to: m.To, adopted: true}
	return nil
}

// raise gives interfaces their flags.
func (b *builder) raise(n *state.Network, numbers map[uint32]uint32) error {
	for _, m := range n.Link {
		index, ok := numbers[m.Index]
		if !ok || (b.made[m.Name] == nil || b.made[m.Name].adopted) && m.Kind != netns.KindLoopback {
			continue
		}
		l := fromMessage(m)
		if err := b.in.Configure(int(index), &l); err != nil {
			return err
		}
		if err := b.in.SetUp(int(index), l.Up()); err != nil {
			return fmt.Errorf("set interface %s up: %w", m.Name, err)
		}
	}
	return nil
}

// sync makes the messages of one category. What lies on interfaces of somebody
// else's is added, where that can be done; their addresses are not touched.
func (b *builder) sync(c netns.Category, list [][]byte, numbers map[uint32]uint32, adopted map[uint32]bool) error {
	var want, extra [][]byte
	for _, body := range list {
		body, err := b.mapped(c, bytes.Clone(body))
		if err != nil {
			return err
		}
		if c == netns.Addresses {
			if err := b.allowed(body); err != nil {
				return err
			}
		}
		switch {
		case renumber(c, body, numbers) != nil: // on an interface that is not here
		case !lies(c, body, adopted):
			want = append(want, body)
		case c != netns.Addresses:
			extra = append(extra, body)
		}
	}
	if err := b.in.Sync(c, want, func(body []byte) bool { return lies(c, body, adopted) }); err != nil {
		return err
	}
	for _, what := range b.in.Add(c, extra) {
		b.lose(what)
	}
	return nil
}

// filter makes the rules of nf_tables and iptables.
func (b *builder) filter(n *state.Network) error {
	var changes []netns.Change
	for _, c := range n.Netfilter {
		changes = append(changes, netns.Change{Kind: uint16(c.Kind), Family: byte(c.Family), Attributes: c.Attributes})
	}
	if err := netns.MakeTables(b.ns, changes); err != nil {
		return err
	}
	return inside(b.ns, func() error {
		for _, m := range n.Table {
			t := netns.FilterTable{Family: int(m.Family), Name: m.Name, Hooks: m.ValidHooks, Entries: m.Entries, Content: m.Content}
			copy(t.Entry[:], m.HookEntry)
			copy(t.Underflow[:], m.Underflow)
			if err := t.Make(); err != nil {
				return err
			}
		}
		return nil
	})
}

// maxLevels bounds how deep queueing disciplines lie in classes of others.
const maxLevels = 8

// shape makes queueing disciplines and their classes, which need each other.
func (b *builder) shape(n *state.Network, numbers map[uint32]uint32, adopted map[uint32]bool) (err error) {
	for range maxLevels {
		err = errors.Join(
			b.sync(netns.Disciplines, n.Discipline, numbers, adopted),
			b.sync(netns.Classes, n.Class, numbers, adopted),
		)
		if err == nil {
			return nil
		}
	}
	return err
}

// lies tells whether a message is of one of these interfaces.
func lies(c netns.Category, body []byte, on map[uint32]bool) bool {
	found := false
	_ = netns.EachIndex(c, body, func(place []byte) error {
		found = found || on[binary.NativeEndian.Uint32(place)]
		return nil
	})
	return found
}

// allowed refuses an address that the request does not give.
func (b *builder) allowed(body []byte) error {
	if b.request == nil {
		return nil
	}
	a, err := netns.ParseAddress(body)
	if err != nil {
		return err
	}
	for _, m := range b.last.Link {
		if int(m.Index) != a.Index {
			continue
		}
		if m.Kind == netns.KindLoopback {
			return nil // it leads nowhere
		}
		if g := b.request.Find(m.Name); g != nil {
			for _, p := range g.Addresses {
				if b.mapping.Of(p.Addr()) == a.Prefix.Addr() {
					return nil
				}
			}
		}
		return fmt.Errorf("the image has the address %s on interface %s, which the request does not give", a.Prefix, m.Name)
	}
	return nil
}

// asAsked compares the addresses of interfaces that CNI has made with those of the
// container, to which its sockets are bound.
func (b *builder) asAsked(n *state.Network) error {
	have, err := b.in.List(netns.Addresses)
	if err != nil {
		return err
	}
	has := map[netip.Addr]bool{}
	var all []string
	for _, body := range have {
		if a, err := netns.ParseAddress(body); err == nil {
			has[a.Prefix.Addr()] = true
			all = append(all, a.Prefix.String())
		}
	}
	for _, m := range n.Link {
		if x := b.made[m.Name]; x == nil || !x.adopted {
			continue
		}
		for _, p := range b.request.Find(m.Name).Addresses {
			if a := b.mapping.Of(p.Addr()); !has[a] && !a.IsLinkLocalUnicast() {
				return fmt.Errorf("the CNI network %s has not given interface %s the address %s: there are %v", m.To, m.Name, a, all)
			}
		}
	}
	return nil
}

// patience is how long IPv6 may take to use an address that needs no detection.
const patience = 2 * time.Second

// settle waits until all addresses are in use.
func (b *builder) settle() error {
	for until := time.Now().Add(patience); ; time.Sleep(time.Millisecond) {
		ok, err := b.in.Settled()
		if err != nil || ok {
			return err
		}
		if time.Now().After(until) {
			return errors.New("IPv6 does not take the container's addresses into use: is another in the way of duplicate address detection?")
		}
	}
}

// quiet are settings that an interface has while it is built: its addresses are
// not tested, and it makes none and asks for none by itself.
var quiet = map[string]string{"accept_dad": "0", "dad_transmits": "0", "addr_gen_mode": "1", "router_solicitations": "0"}

// preliminary are the settings with which addresses are made.
func preliminary(links []*state.NetworkLink, list []*state.NetworkSetting) (out []*state.NetworkSetting) {
	held := map[string]string{}
	for _, l := range links {
		if l.Kind != netns.KindLoopback {
			for name, value := range quiet {
				held["ipv6/conf/"+l.Name+"/"+name] = value
			}
		}
	}
	for _, s := range list {
		if v, ok := held[s.Name]; ok {
			s = &state.NetworkSetting{Name: s.Name, Value: v}
		}
		out = append(out, s)
	}
	return out
}

func (b *builder) set(list []*state.NetworkSetting) error {
	if len(list) == 0 {
		return nil
	}
	all := make([]netns.Setting, len(list))
	for i, s := range list {
		all[i] = netns.Setting{Name: s.Name, Value: s.Value}
	}
	return inside(b.ns, func() error {
		failed, err := netns.Set(all)
		for _, name := range failed {
			b.lose("setting " + name)
		}
		return err
	})
}

// announcements prepares what is said at the commit.
func (b *builder) announcements(n *state.Network, numbers map[uint32]uint32) error {
	a, err := announcerOf(b.ns, n, func(l *state.NetworkLink, ip netip.Addr) (int, netip.Addr, bool) {
		index, ok := numbers[l.Index]
		return int(index), b.mapping.Of(ip), ok && b.made[l.Name] != nil
	})
	if err != nil {
		return err
	}
	if b.announce != nil {
		_ = b.announce.Close()
	}
	b.announce = a
	return nil
}

// tie connects the namespace and tells its neighbours. From here on the container
// lives here: what fails is told and ends nothing.
func (b *builder) tie() error {
	for name, s := range b.silence {
		if err := s.Lift(); err != nil {
			slog.Error("end the silence of the container's network", "interface", name, "error", err)
		}
	}
	for name, m := range b.made {
		if m.bridge == 0 {
			continue
		}
		if err := b.host.SetMaster(m.outer, m.bridge); err != nil {
			slog.Error("the container's interface could not be put into its bridge", "interface", name, "bridge", m.to, "error", err)
		}
	}
	if b.announce == nil {
		return nil
	}
	if err := b.announce.Announce(); err != nil {
		slog.Error("announce the container's addresses", "error", err)
	}
	go b.repeat()
	return nil
}

// untie takes the namespace off again: a copy that is given up must not answer for the
// container.
func (b *builder) untie() error {
	var errs []error
	for name, m := range b.made {
		err := error(nil)
		switch {
		case m.bridge != 0:
			err = b.host.SetMaster(m.outer, 0)
		case b.silence[name] != nil:
			err = b.in.SetUp(m.link.Index, false)
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("take interface %s off the network: %w", name, err))
		}
	}
	return errors.Join(errs...)
}

// repeat announces again: what was sent first may be lost where a switch has
// just learnt of the port (RFC 5227, 2.3, has two announcements).
func (b *builder) repeat() {
	for _, pause := range []time.Duration{20 * time.Millisecond, 200 * time.Millisecond, time.Second} {
		time.Sleep(pause)
		_ = b.announce.Announce()
	}
}

// undo removes what was made: the kernel would too, with the namespace, but
// later.
func (b *builder) undo() error {
	var errs []error
	for name, m := range b.made {
		if m.adopted {
			continue
		}
		if err := b.in.Delete(m.link.Index); err != nil {
			errs = append(errs, fmt.Errorf("remove interface %s of a copy that was given up: %w", name, err))
		}
	}
	return errors.Join(append(errs, b.in.Close(), b.host.Close(), b.ns.Close())...)
}

// mapped replaces addresses as the request says.
func (b *builder) mapped(c netns.Category, body []byte) ([]byte, error) {
	if len(b.mapping) == 0 {
		return body, nil
	}
	return netns.Replace(c, body, func(a netip.Addr) netip.Addr { return b.mapping.Of(a) })
}
