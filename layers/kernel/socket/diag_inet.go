// SPDX-License-Identifier: Apache-2.0

package socket

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"

	"golang.org/x/sys/unix"
)

// inetSocket is what inet_diag tells about a TCP socket, also about one that no
// descriptor leads to: not accepted yet, or closed by its program.
type inetSocket struct {
	state    uint8
	inode    uint32 // 0 without a descriptor
	received uint32 // and not read, in bytes
	expires  uint32 // of TIME_WAIT: for how long the kernel remembers it, in milliseconds
	// unacknowledged is what was written and has not arrived for certain, in bytes, of
	// which the end of the stream is one (net/ipv4/tcp_diag.c, tcp_diag_get_info).
	unacknowledged uint32
	// unsure: the kernel has not sent all of that yet, or believes some of it lost.
	// Only findInet tells.
	unsure bool

	local   netip.AddrPort
	remote  netip.AddrPort
	md5     bool   // its segments are signed
	request []byte // by which it was found
}

// findInet asks for the TCP socket with these addresses in the thread's network
// namespace. nil: there is none. See include/uapi/linux/inet_diag.h.
func findInet(e ends) (found *inetSocket, err error) {
	families := []byte{unix.AF_INET6}
	if e.local.Addr().Is4() {
		families = []byte{unix.AF_INET, unix.AF_INET6}
	}
	for _, family := range families {
		b := inetRequest(family, ^uint32(0), unix.NLM_F_REQUEST)
		b[18] = withInfo
		be := binary.BigEndian
		be.PutUint16(b[24:], e.local.Port())
		be.PutUint16(b[26:], e.remote.Port())
		putAddress(b[28:44], family, e.local.Addr())
		putAddress(b[44:60], family, e.remote.Addr())
		binary.LittleEndian.PutUint64(b[64:], ^uint64(0)) // no cookie (INET_DIAG_NOCOOKIE)
		if err := askInet(b, func(s *inetSocket) { found = s }); err != nil {
			return nil, err
		}
		if found != nil {
			found.request = b
			return found, nil
		}
	}
	return nil, nil
}

// evict removes what the kernel keeps of a connection that has ended (TIME_WAIT,
// or FIN_WAIT2 without a program) and that is in the way of a new one with the
// same addresses. With ending it also removes one that no program has any more
// and that still ends. What somebody has is left alone.
func evict(e ends, ending bool) error {
	s, err := findInet(e)
	if err != nil || s == nil || s.inode != 0 {
		return err
	}
	if s.state != stateTimeWait && s.state != stateFinWait2 && !(ending && (s.state == stateFinWait1 || s.state == stateClosing || s.state == stateLastAck)) {
		return nil
	}
	b := s.request
	binary.LittleEndian.PutUint16(b[4:], sockDestroy)
	binary.LittleEndian.PutUint16(b[6:], unix.NLM_F_REQUEST|unix.NLM_F_ACK)
	return askInet(b, func(*inetSocket) {})
}

// sockDestroy is SOCK_DESTROY of include/uapi/linux/sock_diag.h (Linux 4.5,
// CONFIG_INET_DIAG_DESTROY).
const sockDestroy = 21

// findConnecting asks for a socket that connects, by its inode: getpeername(2)
// does not tell where to.
func findConnecting(inode uint32) (found *inetSocket, err error) {
	for _, family := range []byte{unix.AF_INET, unix.AF_INET6} {
		b := inetRequest(family, 1<<stateSynSent, unix.NLM_F_REQUEST|unix.NLM_F_DUMP)
		err := askInet(b, func(s *inetSocket) {
			if s.inode == inode {
				found = s
			}
		})
		if err != nil || found != nil {
			return found, err
		}
	}
	return nil, nil
}

// withInfo asks for INET_DIAG_INFO, behind which the kernel tells of signatures
// (net/ipv4/inet_diag.c, inet_sk_diag_fill).
const (
	diagInfo = 2
	withInfo = 1 << (diagInfo - 1)
)

// unsure reads of struct tcp_info tcpi_retransmits, tcpi_lost and tcpi_notsent_bytes.
func unsure(info []byte) bool {
	n := func(at int) uint32 { return binary.NativeEndian.Uint32(info[at:]) }
	return len(info) < 148 || info[2] > 0 || n(32) > 0 || n(144) > 0
}

// inetRequest is a request with struct inet_diag_req_v2.
func inetRequest(family byte, states uint32, flags uint16) []byte {
	b := diagRequest(family, 56, flags)
	b[17] = unix.IPPROTO_TCP
	binary.LittleEndian.PutUint32(b[20:], states)
	return b
}

func putAddress(b []byte, family byte, a netip.Addr) {
	if family == unix.AF_INET {
		v4 := a.As4()
		copy(b, v4[:])
		return
	}
	v6 := a.As16()
	copy(b, v6[:])
}

// eachInet tells of the TCP sockets of the thread's network namespace in some states
// (bits).
func eachInet(states uint32, fn func(*inetSocket)) error {
	for _, family := range []byte{unix.AF_INET, unix.AF_INET6} {
		if err := askInet(inetRequest(family, states, unix.NLM_F_REQUEST|unix.NLM_F_DUMP), fn); err != nil {
			return err
		}
	}
	return nil
}

// askInet makes one request and calls each for every socket of the answer.
func askInet(request []byte, each func(*inetSocket)) error {
	return askDiag(request, func(b []byte) (bool, error) { return parseInet(b, each) })
}

var errInetDiag = errors.New("inet_diag: the kernel's answer has an unknown shape")

// parseInet takes the messages of one answer: struct inet_diag_msg each, or an
// error. An answer for one socket is one message.
func parseInet(b []byte, each func(*inetSocket)) (done bool, err error) {
	le := binary.LittleEndian
	for len(b) >= 16 {
		size := le.Uint32(b)
		if size < 16 || uint64(size) > uint64(len(b)) {
			return false, errInetDiag
		}
		kind, flags, body := le.Uint16(b[4:]), le.Uint16(b[6:]), b[16:size]
		switch {
		case kind == unix.NLMSG_DONE:
			return true, nil
		case kind == unix.NLMSG_ERROR && len(body) >= 4:
			if errno := unix.Errno(-int32(le.Uint32(body))); errno != 0 && errno != unix.ENOENT {
				return false, fmt.Errorf("inet_diag (is the module tcp_diag there?): %w", errno)
			}
			return true, nil
		case kind == sockDiagByFamily && len(body) >= 72:
			each(newInetSocket(body))
		default:
			return false, errInetDiag
		}
		if flags&unix.NLM_F_MULTI == 0 {
			return true, nil
		}
		b = b[min(len(b), int(size+3)&^3):]
	}
	return false, nil
}

// newInetSocket reads struct inet_diag_msg: idiag_family, _state, _timer,
// _retrans; the id (ports, addresses, interface, cookie) of 48 bytes; _expires,
// _rqueue, _wqueue, _uid, _inode; then attributes.
func newInetSocket(b []byte) *inetSocket {
	le := binary.LittleEndian
	s := &inetSocket{state: b[1], expires: le.Uint32(b[52:]), received: le.Uint32(b[56:]), unacknowledged: le.Uint32(b[60:]), inode: le.Uint32(b[68:])}
	address := func(at int) netip.Addr {
		if b[0] == unix.AF_INET {
			return netip.AddrFrom4([4]byte(b[at:]))
		}
		return netip.AddrFrom16([16]byte(b[at:])).Unmap()
	}
	s.local = netip.AddrPortFrom(address(8), binary.BigEndian.Uint16(b[4:]))
	s.remote = netip.AddrPortFrom(address(24), binary.BigEndian.Uint16(b[6:]))
	for b = b[72:]; len(b) >= 4; {
		size, kind := int(le.Uint16(b)), le.Uint16(b[2:])
		if size < 4 || size > len(b) {
			break
		}
		s.md5 = s.md5 || kind == diagMD5
		if kind == diagInfo {
			s.unsure = unsure(b[4:size])
		}
		b = b[min(len(b), (size+3)&^3):]
	}
	return s
}
