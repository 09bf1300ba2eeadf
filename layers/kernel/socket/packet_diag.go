// SPDX-License-Identifier: Apache-2.0

package socket

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// packetSocket is what packet_diag tells about a socket of packet(7), see
// include/uapi/linux/packet_diag.h.
type packetSocket struct {
	inode    uint32
	protocol uint16 // ETH_P_*
	index    int32  // of the interface; 0: all, negative: it has gone
	// copyThreshold is PACKET_COPY_THRESH, for which there is no getsockopt(2).
	copyThreshold uint32
	groups        []packetGroup
	ring          string // "" or the option that made one
	inFanout      bool
}

// packetGroup is struct packet_diag_mclist.
type packetGroup struct {
	index, count, typ uint32
	address           []byte
}

// Constants of include/uapi/linux/packet_diag.h.
const (
	showPacketInfo   = 1 << 0
	showPacketGroups = 1 << 1
	showPacketRings  = 1 << 2
	showPacketFanout = 1 << 3

	attrPacketInfo   = 0
	attrPacketGroups = 1
	attrPacketRX     = 2
	attrPacketTX     = 3
	attrPacketFanout = 4
)

// listPacket asks the kernel for every packet socket of the thread's network
// namespace, by inode.
func listPacket() (map[uint32]*packetSocket, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_SOCK_DIAG)
	if err != nil {
		return nil, os.NewSyscallError("socket(NETLINK_SOCK_DIAG)", err)
	}
	defer unix.Close(fd)
	// struct nlmsghdr, then struct packet_diag_req.
	req := make([]byte, 16+20)
	le := binary.LittleEndian
	le.PutUint32(req, uint32(len(req)))
	le.PutUint16(req[4:], sockDiagByFamily)
	le.PutUint16(req[6:], unix.NLM_F_REQUEST|unix.NLM_F_DUMP)
	req[16] = unix.AF_PACKET
	le.PutUint32(req[24:], showPacketInfo|showPacketGroups|showPacketRings|showPacketFanout)
	if err := unix.Sendto(fd, req, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return nil, os.NewSyscallError("sendto(NETLINK_SOCK_DIAG)", err)
	}
	out := map[uint32]*packetSocket{}
	buf := make([]byte, 64<<10)
	for {
		n, _, err := unix.Recvfrom(fd, buf, 0)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return nil, os.NewSyscallError("recvfrom(NETLINK_SOCK_DIAG)", err)
		}
		done, err := parsePacketDump(buf[:n], out)
		if err != nil || done {
			return out, err
		}
	}
}

var errPacketDiag = errors.New("packet_diag: the kernel's answer has an unknown shape")

// parsePacketDump takes the messages of one answer.
func parsePacketDump(b []byte, out map[uint32]*packetSocket) (done bool, err error) {
	le := binary.LittleEndian
	for len(b) >= 16 {
		size := le.Uint32(b)
		if size < 16 || uint64(size) > uint64(len(b)) {
			return false, errPacketDiag
		}
		body := b[16:size]
		switch le.Uint16(b[4:]) {
		case unix.NLMSG_DONE:
			return true, nil
		case unix.NLMSG_ERROR:
			if len(body) < 4 {
				return false, errPacketDiag
			}
			return false, fmt.Errorf("packet_diag (is the module af_packet_diag there?): %w", unix.Errno(-int32(le.Uint32(body))))
		case sockDiagByFamily:
			s, err := parsePacket(body)
			if err != nil {
				return false, err
			}
			out[s.inode] = s
		}
		b = b[min(len(b), int(size+3)&^3):]
	}
	return false, nil
}

// parsePacket reads struct packet_diag_msg and its attributes.
func parsePacket(b []byte) (*packetSocket, error) {
	if len(b) < 16 {
		return nil, errPacketDiag
	}
	le := binary.LittleEndian
	s := &packetSocket{protocol: le.Uint16(b[2:]), inode: le.Uint32(b[4:])}
	for b = b[16:]; len(b) >= 4; {
		size, kind := int(le.Uint16(b)), le.Uint16(b[2:])
		if size < 4 || size > len(b) {
			return nil, errPacketDiag
		}
		v := b[4:size]
		switch {
		case kind == attrPacketInfo && len(v) >= 24: // struct packet_diag_info
			s.index, s.copyThreshold = int32(le.Uint32(v)), le.Uint32(v[12:])
		case kind == attrPacketGroups:
			for ; len(v) >= 44; v = v[44:] {
				length := min(int(le.Uint16(v[10:])), 32) // MAX_ADDR_LEN
				s.groups = append(s.groups, packetGroup{le.Uint32(v), le.Uint32(v[4:]), uint32(le.Uint16(v[8:])), append([]byte(nil), v[12:12+length]...)})
			}
		case kind == attrPacketRX:
			s.ring = "PACKET_RX_RING"
		case kind == attrPacketTX:
			s.ring = "PACKET_TX_RING"
		case kind == attrPacketFanout:
			s.inFanout = true
		}
		b = b[min(len(b), (size+3)&^3):]
	}
	return s, nil
}
