// SPDX-License-Identifier: Apache-2.0

package socket

import (
	"encoding/binary"

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
	// struct packet_diag_req
	req := diagRequest(unix.AF_PACKET, 20, unix.NLM_F_REQUEST|unix.NLM_F_DUMP)
	binary.LittleEndian.PutUint32(req[24:], showPacketInfo|showPacketGroups|showPacketRings|showPacketFanout)
	out := map[uint32]*packetSocket{}
	return out, askDiag(req, func(b []byte) (bool, error) { return parsePacketDump(b, out) })
}

var packetDiag = newDiagKind("packet_diag", "af_packet_diag")

// parsePacketDump takes the messages of one answer.
func parsePacketDump(b []byte, out map[uint32]*packetSocket) (done bool, err error) {
	return packetDiag.dump(b, func(body []byte) error {
		s, err := parsePacket(body)
		if err == nil {
			out[s.inode] = s
		}
		return err
	})
}

// parsePacket reads struct packet_diag_msg and its attributes.
func parsePacket(b []byte) (*packetSocket, error) {
	if len(b) < 16 {
		return nil, packetDiag.shape
	}
	le := binary.LittleEndian
	s := &packetSocket{protocol: le.Uint16(b[2:]), inode: le.Uint32(b[4:])}
	return s, packetDiag.attributes(b[16:], func(kind uint16, v []byte) {
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
	})
}
