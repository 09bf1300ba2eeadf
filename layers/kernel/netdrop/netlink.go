// SPDX-License-Identifier: Apache-2.0

//go:build linux

package netdrop

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// message is one of nf_tables.
type message struct {
	kind, flags uint16
	family      byte
	attributes  []byte
}

// netlink is a socket of NETLINK_NETFILTER in the thread's network namespace.
type netlink struct {
	fd  int
	seq uint32
}

func open() (*netlink, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_NETFILTER)
	if err != nil {
		return nil, fmt.Errorf("netfilter of the kernel: %w", os.NewSyscallError("socket(NETLINK_NETFILTER)", err))
	}
	return &netlink{fd: fd}, nil
}

// close does not wait: the kernel first frees, after all its processors have
// passed a quiet state, what was removed over the socket: 10 ms.
func (n *netlink) close() { go unix.Close(n.fd) }

// attribute is struct nlattr and its value, filled up to four bytes.
func attribute(kind uint16, value []byte) []byte {
	b := binary.NativeEndian.AppendUint16(nil, uint16(4+len(value)))
	b = append(binary.NativeEndian.AppendUint16(b, kind), value...)
	for len(b)%4 != 0 {
		b = append(b, 0)
	}
	return b
}

func text(kind uint16, s string) []byte { return attribute(kind, append([]byte(s), 0)) }

func number(kind uint16, v uint32) []byte {
	return attribute(kind, binary.BigEndian.AppendUint32(nil, v))
}

func nested(kind uint16, parts ...[]byte) []byte {
	var all []byte
	for _, p := range parts {
		all = append(all, p...)
	}
	return attribute(kind|unix.NLA_F_NESTED, all)
}

// Kinds of nfnetlink.h that frame a batch.
const (
	batchBegin = unix.NFNL_MSG_BATCH_BEGIN
	batchEnd   = unix.NFNL_MSG_BATCH_END
)

// encode appends struct nlmsghdr and struct nfgenmsg with their attributes.
func (n *netlink) encode(b []byte, kind, flags uint16, family byte, resource uint16, attributes []byte) []byte {
	n.seq++
	ne := binary.NativeEndian
	b = ne.AppendUint32(b, uint32(20+len(attributes)))
	b = ne.AppendUint16(b, kind)
	b = ne.AppendUint16(b, flags|unix.NLM_F_REQUEST)
	b = ne.AppendUint32(b, n.seq)
	b = append(b, 0, 0, 0, 0, family, unix.NFNETLINK_V0)
	b = binary.BigEndian.AppendUint16(b, resource)
	return append(b, attributes...)
}

func tableKind(kind uint16) uint16 { return unix.NFNL_SUBSYS_NFTABLES<<8 | kind }

// batch makes changes, all or none.
func (n *netlink) batch(list []message) error { return n.batchAt(0, list) }

// batchAt makes changes only if the tables are still of that generation, else it
// fails with ERESTART; 0 is any.
func (n *netlink) batchAt(generation uint32, list []message) error {
	var condition []byte
	if generation != 0 {
		condition = number(unix.NFNL_BATCH_GENID, generation)
	}
	b := n.encode(nil, batchBegin, 0, unix.AF_UNSPEC, unix.NFNL_SUBSYS_NFTABLES, condition)
	first := n.seq
	for _, m := range list {
		b = n.encode(b, tableKind(m.kind), m.flags|unix.NLM_F_ACK, m.family, 0, m.attributes)
	}
	b = n.encode(b, batchEnd, 0, unix.AF_UNSPEC, unix.NFNL_SUBSYS_NFTABLES, nil)
	if err := unix.Sendto(n.fd, b, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return os.NewSyscallError("sendto(NETLINK_NETFILTER)", err)
	}
	return n.answers(first, len(list))
}

// answers takes the answers to a batch: one for each change, or one for the
// batch as a whole. Of several errors the first counts.
func (n *netlink) answers(first uint32, count int) error {
	var found error
	for count > 0 {
		list, err := n.receive()
		if err != nil {
			return err
		}
		for _, a := range list {
			if a.kind != unix.NLMSG_ERROR || a.seq < first {
				continue // or of a batch that had failed before
			}
			if found == nil {
				found = a.err
			}
			if count--; a.seq == first {
				count = 0 // the batch as a whole
			}
		}
		if found != nil {
			return found
		}
	}
	return nil
}

// answer is one message of the kernel's.
type answer struct {
	kind uint16
	seq  uint32
	err  error // of NLMSG_ERROR; nil is an acknowledgment
	body []byte
}

var errAnswer = errors.New("nf_tables: the kernel's answer has an unknown shape")

func (n *netlink) receive() ([]answer, error) {
	buf := make([]byte, 64<<10)
	for {
		got, _, err := unix.Recvfrom(n.fd, buf, 0)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return nil, os.NewSyscallError("recvfrom(NETLINK_NETFILTER)", err)
		}
		return parse(buf[:got])
	}
}

func parse(b []byte) (out []answer, err error) {
	ne := binary.NativeEndian
	for len(b) >= 16 {
		size := ne.Uint32(b)
		if size < 16 || uint64(size) > uint64(len(b)) {
			return nil, errAnswer
		}
		a := answer{kind: ne.Uint16(b[4:]), seq: ne.Uint32(b[8:]), body: b[16:size]}
		if a.kind == unix.NLMSG_ERROR {
			if len(a.body) < 4 {
				return nil, errAnswer
			}
			if e := -int32(ne.Uint32(a.body)); e != 0 {
				a.err = unix.Errno(e)
			}
		}
		out = append(out, a)
		b = b[min(len(b), int(size+3)&^3):]
	}
	return out, nil
}

// request asks one question without attributes and expects one answer.
func (n *netlink) request(kind uint16) error { _, err := n.ask(kind); return err }

func (n *netlink) ask(kind uint16) (answer, error) { return n.askFor(kind, unix.AF_UNSPEC, nil) }

func (n *netlink) askFor(kind uint16, family byte, attributes []byte) (answer, error) {
	if err := unix.Sendto(n.fd, n.encode(nil, tableKind(kind), 0, family, 0, attributes), 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return answer{}, os.NewSyscallError("sendto(NETLINK_NETFILTER)", err)
	}
	list, err := n.receive()
	if err != nil {
		return answer{}, err
	}
	if len(list) == 0 {
		return answer{}, errAnswer
	}
	return list[0], list[0].err
}

// generation is the number of the tables' last change.
func (n *netlink) generation() (uint32, error) {
	a, err := n.ask(unix.NFT_MSG_GETGEN)
	if err != nil {
		return 0, err
	}
	// struct nfgenmsg, then attributes: NFTA_GEN_ID is the first.
	if len(a.body) < 12 || binary.NativeEndian.Uint16(a.body[6:]) != unix.NFTA_GEN_ID {
		return 0, errAnswer
	}
	return binary.BigEndian.Uint32(a.body[8:]), nil
}

// exists tells whether the family has the table.
func (n *netlink) exists(f family) (bool, error) {
	_, err := n.askFor(unix.NFT_MSG_GETTABLE, f.protocol, text(unix.NFTA_TABLE_NAME, table))
	if errors.Is(err, unix.ENOENT) {
		return false, nil
	}
	return err == nil, err
}

// keys are those of a set's elements.
func (n *netlink) keys(f family, set string) (map[string]bool, error) {
	b := append(text(unix.NFTA_SET_ELEM_LIST_TABLE, table), text(unix.NFTA_SET_ELEM_LIST_SET, set)...)
	out := map[string]bool{}
	return out, n.dump(unix.NFT_MSG_GETSETELEM, f.protocol, b, func(body []byte) { addKeys(body, out) })
}

// dump asks for everything of a kind.
func (n *netlink) dump(kind uint16, family byte, attributes []byte, each func(body []byte)) error {
	b := n.encode(nil, tableKind(kind), unix.NLM_F_DUMP, family, 0, attributes)
	if err := unix.Sendto(n.fd, b, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return os.NewSyscallError("sendto(NETLINK_NETFILTER)", err)
	}
	for {
		list, err := n.receive()
		if err != nil {
			return err
		}
		for _, a := range list {
			if a.kind == unix.NLMSG_DONE || a.err != nil {
				return a.err
			}
			each(a.body)
		}
	}
}

// addKeys reads the elements of one answer: struct nfgenmsg, then attributes.
func addKeys(b []byte, out map[string]bool) {
	eachElement(b, func(key string, _ []byte) { out[key] = true })
}

// eachElement tells of the elements of one answer, with their attributes.
func eachElement(b []byte, each func(key string, attributes []byte)) {
	for _, list := range find(b[min(4, len(b)):], unix.NFTA_SET_ELEM_LIST_ELEMENTS) {
		for _, element := range find(list, unix.NFTA_LIST_ELEM) {
			for _, key := range find(element, unix.NFTA_SET_ELEM_KEY) {
				for _, value := range find(key, unix.NFTA_DATA_VALUE) {
					each(string(value), element)
				}
			}
		}
	}
}

// find returns the values of the attributes of one kind.
func find(b []byte, kind uint16) (values [][]byte) {
	for len(b) >= 4 {
		size, got := int(binary.NativeEndian.Uint16(b)), binary.NativeEndian.Uint16(b[2:])&^uint16(unix.NLA_F_NESTED|unix.NLA_F_NET_BYTEORDER)
		if size < 4 || size > len(b) {
			break
		}
		if got == kind {
			values = append(values, b[4:size])
		}
		b = b[min(len(b), (size+3)&^3):]
	}
	return values
}
