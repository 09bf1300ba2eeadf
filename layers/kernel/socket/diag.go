// SPDX-License-Identifier: Apache-2.0

package socket

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"

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

// Constants of include/uapi/linux/sock_diag.h and unix_diag.h.
const (
	sockDiagByFamily = 20
	showName         = 1 << 0
	showVFS          = 1 << 1
	showPeer         = 1 << 2
	showPending      = 1 << 3
	showQueue        = 1 << 4

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
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_SOCK_DIAG)
	if err != nil {
		return nil, os.NewSyscallError("socket(NETLINK_SOCK_DIAG)", err)
	}
	defer unix.Close(fd)
	// struct nlmsghdr, then struct unix_diag_req.
	req := make([]byte, 16+24)
	le := binary.LittleEndian
	le.PutUint32(req, uint32(len(req)))
	le.PutUint16(req[4:], sockDiagByFamily)
	le.PutUint16(req[6:], unix.NLM_F_REQUEST|unix.NLM_F_DUMP)
	req[16] = unix.AF_UNIX
	le.PutUint32(req[20:], ^uint32(0)) // every state
	le.PutUint32(req[28:], showName|showVFS|showPeer|showPending|showQueue)
	if err := unix.Sendto(fd, req, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return nil, os.NewSyscallError("sendto(NETLINK_SOCK_DIAG)", err)
	}
	out := map[uint32]*unixSocket{}
	buf := make([]byte, 64<<10)
	for {
		n, _, err := unix.Recvfrom(fd, buf, 0)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return nil, os.NewSyscallError("recvfrom(NETLINK_SOCK_DIAG)", err)
		}
		done, err := parseDump(buf[:n], out)
		if err != nil || done {
			return out, err
		}
	}
}

var errDiag = errors.New("unix_diag: the kernel's answer has an unknown shape")

// parseDump takes the messages of one answer.
func parseDump(b []byte, out map[uint32]*unixSocket) (done bool, err error) {
	le := binary.LittleEndian
	for len(b) >= 16 {
		size := le.Uint32(b)
		if size < 16 || uint64(size) > uint64(len(b)) {
			return false, errDiag
		}
		body := b[16:size]
		switch le.Uint16(b[4:]) {
		case unix.NLMSG_DONE:
			return true, nil
		case unix.NLMSG_ERROR:
			if len(body) < 4 {
				return false, errDiag
			}
			return false, fmt.Errorf("unix_diag (is the module unix_diag there?): %w", unix.Errno(-int32(le.Uint32(body))))
		case sockDiagByFamily:
			u, err := parseUnix(body)
			if err != nil {
				return false, err
			}
			out[u.inode] = u
		}
		b = b[min(len(b), int(size+3)&^3):]
	}
	return false, nil
}

// parseUnix reads struct unix_diag_msg and its attributes.
func parseUnix(b []byte) (*unixSocket, error) {
	if len(b) < 16 {
		return nil, errDiag
	}
	le := binary.LittleEndian
	u := &unixSocket{typ: b[1], state: b[2], inode: le.Uint32(b[4:])}
	for b = b[16:]; len(b) >= 4; {
		size, kind := int(le.Uint16(b)), le.Uint16(b[2:])
		if size < 4 || size > len(b) {
			return nil, errDiag
		}
		v := b[4:size]
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
		b = b[min(len(b), (size+3)&^3):]
	}
	return u, nil
}
