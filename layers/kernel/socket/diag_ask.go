// SPDX-License-Identifier: Apache-2.0

package socket

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// sockDiagByFamily is SOCK_DIAG_BY_FAMILY of include/uapi/linux/sock_diag.h.
const sockDiagByFamily = 20

// diagHeader is the size of struct nlmsghdr.
const diagHeader = 16

// diagRequest is struct nlmsghdr and room for a request of a family's: its structure
// begins with the family.
func diagRequest(family byte, size int, flags uint16) []byte {
	b := make([]byte, diagHeader+size)
	le := binary.LittleEndian
	le.PutUint32(b, uint32(len(b)))
	le.PutUint16(b[4:], sockDiagByFamily)
	le.PutUint16(b[6:], flags)
	b[diagHeader] = family
	return b
}

// askDiag makes one request of sock_diag(7) in the thread's network namespace. parse
// takes what comes, until it says that this was all.
func askDiag(request []byte, parse func(b []byte) (done bool, err error)) error {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_SOCK_DIAG)
	if err != nil {
		return os.NewSyscallError("socket(NETLINK_SOCK_DIAG)", err)
	}
	defer unix.Close(fd)
	if err := unix.Sendto(fd, request, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return os.NewSyscallError("sendto(NETLINK_SOCK_DIAG)", err)
	}
	buf := make([]byte, 64<<10)
	for {
		n, _, err := unix.Recvfrom(fd, buf, 0)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return os.NewSyscallError("recvfrom(NETLINK_SOCK_DIAG)", err)
		}
		done, err := parse(buf[:n])
		if err != nil || done {
			return err
		}
	}
}

// diagKind is one of the kernel's modules that answer.
type diagKind struct {
	name, module string
	shape        error // an answer that none of theirs can be
}

func newDiagKind(name, module string) *diagKind {
	return &diagKind{name, module, errors.New(name + ": the kernel's answer has an unknown shape")}
}

// dump takes the messages of one part of a dump.
func (k *diagKind) dump(b []byte, each func(body []byte) error) (done bool, err error) {
	le := binary.LittleEndian
	for len(b) >= diagHeader {
		size := le.Uint32(b)
		if size < diagHeader || uint64(size) > uint64(len(b)) {
			return false, k.shape
		}
		body := b[diagHeader:size]
		switch le.Uint16(b[4:]) {
		case unix.NLMSG_DONE:
			return true, nil
		case unix.NLMSG_ERROR:
			if len(body) < 4 {
				return false, k.shape
			}
			return false, fmt.Errorf("%s (is the module %s there?): %w", k.name, k.module, unix.Errno(-int32(le.Uint32(body))))
		case sockDiagByFamily:
			if err := each(body); err != nil {
				return false, err
			}
		}
		b = b[min(len(b), int(size+3)&^3):]
	}
	return false, nil
}

// attributes takes the attributes of one socket (netlink(7)).
func (k *diagKind) attributes(b []byte, each func(kind uint16, v []byte)) error {
	le := binary.LittleEndian
	for len(b) >= 4 {
		size := int(le.Uint16(b))
		if size < 4 || size > len(b) {
			return k.shape
		}
		each(le.Uint16(b[2:]), b[4:size])
		b = b[min(len(b), (size+3)&^3):]
	}
	return nil
}
