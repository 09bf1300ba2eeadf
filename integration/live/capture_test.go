// SPDX-License-Identifier: Apache-2.0

package live

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/io-mig/mig/integration/internal/lab"
)

// notice is a packet that tells somebody something: of the end of a connection, of
// what cannot be reached, or of who has an address.
type notice struct {
	where    string // the interface, and of which network
	at       time.Time
	what     string
	from, to netip.AddrPort // of an announcement: the address, twice
	segment  string
}

func (n notice) String() string {
	return fmt.Sprintf("%s %s: %s of %s to %s %s", n.at.Format("15:04:05.000000"), n.where, n.what, n.from, n.to, n.segment)
}

// What notices say.
const (
	isReset       = "reset"
	isUnreachable = "unreachable"
	isARP         = "gratuitous ARP"
	isNA          = "unsolicited neighbour advertisement"
)

// capture reads the notices of all interfaces of a network namespace.
type capture struct {
	name string
	fd   int
	done sync.WaitGroup

	mu sync.Mutex
	// Below: guarded by mu.
	seen []notice
	err  error
}

// noticesOnly passes ARP, ICMP, ICMPv6 and segments of TCP that reset, so that load
// does not fill the socket's buffer.
var noticesOnly = []unix.SockFilter{
	{Code: unix.BPF_LD | unix.BPF_H | unix.BPF_ABS, K: 12},
	{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: unix.ETH_P_ARP, Jt: 13},
	{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: unix.ETH_P_IP, Jf: 6},
	{Code: unix.BPF_LD | unix.BPF_B | unix.BPF_ABS, K: 14 + 9},
	{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: unix.IPPROTO_ICMP, Jt: 10},
	{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: unix.IPPROTO_TCP, Jf: 10},
	{Code: unix.BPF_LDX | unix.BPF_B | unix.BPF_MSH, K: 14},
	{Code: unix.BPF_LD | unix.BPF_B | unix.BPF_IND, K: 14 + 13},
	{Code: unix.BPF_JMP | unix.BPF_JA, K: 5},
	{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: unix.ETH_P_IPV6, Jf: 6},
	{Code: unix.BPF_LD | unix.BPF_B | unix.BPF_ABS, K: 14 + 6},
	{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: unix.IPPROTO_ICMPV6, Jt: 3},
	{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: unix.IPPROTO_TCP, Jf: 3},
	{Code: unix.BPF_LD | unix.BPF_B | unix.BPF_ABS, K: 14 + 40 + 13},
	{Code: unix.BPF_JMP | unix.BPF_JSET | unix.BPF_K, K: 4, Jf: 1},
	{Code: unix.BPF_RET | unix.BPF_K, K: 0xffff},
	{Code: unix.BPF_RET | unix.BPF_K, K: 0},
}

// capture begins to read in the network of a host, until the end of the test.
func (w *world) capture(name string, h *lab.Host) *capture {
	w.t.Helper()
	c := &capture{name: name}
	err := h.InNetwork(func() (err error) {
		if c.fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0); err != nil {
			return err
		}
		prog := unix.SockFprog{Len: uint16(len(noticesOnly)), Filter: &noticesOnly[0]}
		return errors.Join(
			unix.SetsockoptSockFprog(c.fd, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, &prog),
			unix.SetsockoptTimeval(c.fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Usec: 100_000}),
			unix.Bind(c.fd, &unix.SockaddrLinklayer{Protocol: binary.NativeEndian.Uint16([]byte{0, unix.ETH_P_ALL})}),
		)
	})
	if err != nil {
		w.t.Fatal(err)
	}
	names := map[int]string{}
	end := make(chan struct{})
	c.done.Go(func() {
		b := make([]byte, 1<<16)
		for {
			n, from, err := unix.Recvfrom(c.fd, b, 0)
			select {
			case <-end:
				return
			default:
			}
			if err == unix.EAGAIN || err == unix.EINTR {
				continue
			}
			link, _ := from.(*unix.SockaddrLinklayer)
			// What goes out was seen where it came in.
			if err == nil && link.Pkttype != unix.PACKET_OUTGOING {
				c.note(b[:n], link.Ifindex, names, h)
			} else if err != nil && err != unix.ENETDOWN {
				c.fail(err)
				return
			}
		}
	})
	w.t.Cleanup(func() {
		close(end)
		c.done.Wait()
		_ = unix.Close(c.fd)
	})
	return c
}

// note keeps a packet if it is a notice.
func (c *capture) note(b []byte, index int, names map[int]string, h *lab.Host) {
	n := parseNotice(b)
	if n == nil {
		return
	}
	if names[index] == "" {
		names[index] = fmt.Sprint(index)
		_ = h.InNetwork(func() error {
			link, err := net.InterfaceByIndex(index)
			if err == nil {
				names[index] = link.Name
			}
			return err
		})
	}
	n.at, n.where = time.Now(), names[index]+" of "+c.name
	c.mu.Lock()
	defer c.mu.Unlock()
	c.seen = append(c.seen, *n)
}

func (c *capture) fail(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.err = err
}

// parseNotice reads a frame of Ethernet. nil: it tells nobody anything.
func parseNotice(b []byte) *notice {
	if len(b) < 14 {
		return nil
	}
	kind, b := binary.BigEndian.Uint16(b[12:]), b[14:]
	switch {
	case kind == unix.ETH_P_ARP && len(b) >= 28 && string(b[14:18]) == string(b[24:28]): // of the sender, for the sender
		return &notice{what: isARP, from: address(b[14:18]), to: address(b[24:28])}
	case kind == unix.ETH_P_IP && len(b) >= 20 && len(b) >= int(b[0]&0xf)*4:
		return parseBody(b[9], address(b[12:16]), address(b[16:20]), b[int(b[0]&0xf)*4:])
	case kind == unix.ETH_P_IPV6 && len(b) >= 40:
		return parseBody(b[6], address(b[8:24]), address(b[24:40]), b[40:])
	}
	return nil
}

// parseBody reads what is behind a header of IP.
func parseBody(protocol byte, from, to netip.AddrPort, b []byte) *notice {
	n := &notice{from: from, to: to}
	switch {
	case protocol == unix.IPPROTO_TCP && len(b) >= 14 && b[13]&4 != 0:
		be := binary.BigEndian
		n.what, n.segment = isReset, fmt.Sprintf("flags %#x, sequence %d", b[13], be.Uint32(b[4:]))
		n.from, n.to = netip.AddrPortFrom(from.Addr(), be.Uint16(b)), netip.AddrPortFrom(to.Addr(), be.Uint16(b[2:]))
	case protocol == unix.IPPROTO_ICMP && len(b) >= 8 && b[0] == 3, protocol == unix.IPPROTO_ICMPV6 && len(b) >= 8 && b[0] == 1:
		n.what, n.segment = isUnreachable, fmt.Sprintf("code %d", b[1])
	case protocol == unix.IPPROTO_ICMPV6 && len(b) >= 24 && b[0] == 136 && b[4]&0x40 == 0: // not solicited
		n.what, n.from, n.to = isNA, address(b[8:24]), address(b[8:24])
	default:
		return nil
	}
	return n
}

func address(b []byte) netip.AddrPort {
	a, _ := netip.AddrFromSlice(b)
	return netip.AddrPortFrom(a, 0)
}

// of lists what was seen since a time, by what it is.
func (c *capture) of(since time.Time, what ...string) (list []notice) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, n := range c.seen {
		if n.at.After(since) && slices.Contains(what, n.what) {
			list = append(list, n)
		}
	}
	return list
}

// TestParseNotice holds the parser to frames of each kind.
func TestParseNotice(t *testing.T) {
	ip4 := func(protocol byte, body ...byte) []byte {
		return append([]byte{0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 8, 0, 0x45, 0, 0, 0, 0, 0, 0, 0, 64, protocol, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2}, body...)
	}
	segment := func(flags byte) []byte { return append(make([]byte, 13), flags, 0, 0, 0, 0, 0, 0) }
	for what, b := range map[string][]byte{
		isReset: ip4(unix.IPPROTO_TCP, segment(0x14)...), isUnreachable: ip4(unix.IPPROTO_ICMP, 3, 3, 0, 0, 0, 0, 0, 0),
	} {
		if n := parseNotice(b); n == nil || n.what != what || n.from.Addr().String() != "10.0.0.1" || n.to.Addr().String() != "10.0.0.2" {
			t.Errorf("%s is taken for %v", what, n)
		}
	}
	for what, b := range map[string][]byte{
		"a segment": ip4(unix.IPPROTO_TCP, segment(0x10)...), "a ping": ip4(unix.IPPROTO_ICMP, 8, 0, 0, 0, 0, 0, 0, 0), "UDP": ip4(unix.IPPROTO_UDP, segment(0x14)...), "nothing": nil,
	} {
		if n := parseNotice(b); n != nil {
			t.Errorf("%s is taken for %v", what, n)
		}
	}
}
