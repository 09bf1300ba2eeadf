// SPDX-License-Identifier: Apache-2.0

package socket

import (
	"encoding/binary"

	"golang.org/x/sys/unix"
)

// unixSocket is what sock_diag(7) tells about a unix socket.
type unixSocket struct {
	inode    uint32
	typ      uint8
	state    uint8
	shutdown uint8  // RCV_SHUTDOWN 1, SEND_SHUTDOWN 2
	name     []byte // sun_path as bound, nil if it is not
	file     uint32 // inode of the file that the name led to when it was bound
	hasPeer  bool
	peer     uint32 // inode; 0 if the peer has no descriptor
	// received is what waits to be read: bytes of a stream, connections of a
	// listener. backlog is a listener's limit.
	received, backlog uint32
	// pending are the inodes of the sockets whose connections to a listener nobody
	// has accepted, 0 for one that is closed, in order.
	pending []uint32
}

// Socket states of include/net/tcp_states.h.
const (
	stateEstablished = 1
	stateSynSent     = 2
	stateSynReceived = 3
	stateFinWait1    = 4
	stateFinWait2    = 5
	stateTimeWait    = 6
	stateClose       = 7
	stateCloseWait   = 8
	stateLastAck     = 9
	stateListen      = 10
	stateClosing     = 11
)

// Constants of include/uapi/linux/unix_diag.h.
const (
	showName    = 1 << 0
	showVFS     = 1 << 1
	showPeer    = 1 << 2
	showPending = 1 << 3
	showQueue   = 1 << 4

	attrName     = 0
	attrVFS      = 1
	attrPeer     = 2
	attrPending  = 3
	attrQueue    = 4
	attrShutdown = 6
)

// listUnix asks the kernel for every unix socket of the thread's network
// namespace, by inode.
func listUnix() (map[uint32]*unixSocket, error) {
	// struct unix_diag_req
	req := diagRequest(unix.AF_UNIX, 24, unix.NLM_F_REQUEST|unix.NLM_F_DUMP)
	le := binary.LittleEndian
	le.PutUint32(req[20:], ^uint32(0)) // every state
	le.PutUint32(req[28:], showName|showVFS|showPeer|showPending|showQueue)
	out := map[uint32]*unixSocket{}
	return out, askDiag(req, func(b []byte) (bool, error) { return parseDump(b, out) })
}

var unixDiag = newDiagKind("unix_diag", "unix_diag")

// parseDump takes the messages of one answer.
func parseDump(b []byte, out map[uint32]*unixSocket) (done bool, err error) {
	return unixDiag.dump(b, func(body []byte) error {
		u, err := parseUnix(body)
		if err == nil {
			out[u.inode] = u
		}
		return err
	})
}

// parseUnix reads struct unix_diag_msg and its attributes.
func parseUnix(b []byte) (*unixSocket, error) {
	if len(b) < 16 {
		return nil, unixDiag.shape
	}
	le := binary.LittleEndian
	u := &unixSocket{typ: b[1], state: b[2], inode: le.Uint32(b[4:])}
	return u, unixDiag.attributes(b[16:], func(kind uint16, v []byte) {
		switch {
		case kind == attrName:
			u.name = append([]byte(nil), v...)
		case kind == attrVFS && len(v) >= 8:
			u.file = le.Uint32(v)
		case kind == attrPeer && len(v) >= 4:
			u.hasPeer, u.peer = true, le.Uint32(v)
		case kind == attrPending:
			for ; len(v) >= 4; v = v[4:] {
				u.pending = append(u.pending, le.Uint32(v))
			}
		case kind == attrQueue && len(v) >= 8:
			u.received, u.backlog = le.Uint32(v), le.Uint32(v[4:])
		case kind == attrShutdown && len(v) >= 1:
			u.shutdown = v[0]
		}
	})
}
