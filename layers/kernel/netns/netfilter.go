// SPDX-License-Identifier: Apache-2.0

//go:build linux

package netns

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// Change is a message of nf_tables that makes one thing: NFT_MSG_*, the family
// NFPROTO_*, and the attributes.
type Change struct {
	Kind       uint16
	Family     byte
	Attributes []byte
	// flags beside NLM_F_REQUEST and NLM_F_CREATE.
	flags netlink.HeaderFlags
}

// nfgenmsg is struct nfgenmsg of nfnetlink.h.
func nfgenmsg(family byte, resource uint16) []byte {
	return binary.BigEndian.AppendUint16([]byte{family, unix.NFNETLINK_V0}, resource)
}

const nfgenmsgSize = 4

func tablesKind(kind uint16) netlink.HeaderType {
	return netlink.HeaderType(unix.NFNL_SUBSYS_NFTABLES<<8 | kind)
}

// netfilter is a socket of NETLINK_NETFILTER. Tables with an owner go with it.
type netfilter struct{ conn *netlink.Conn }

func openNetfilter(ns *os.File) (*netfilter, error) {
	c, err := dial(ns, unix.NETLINK_NETFILTER)
	if err != nil {
		return nil, err
	}
	return &netfilter{c}, nil
}

func (n *netfilter) close() error { return n.conn.Close() }

// batch makes changes, all or none.
func (n *netfilter) batch(list []Change) error {
	if len(list) == 0 {
		return nil
	}
	frame := func(kind netlink.HeaderType) netlink.Message {
		return netlink.Message{Header: netlink.Header{Type: kind, Flags: netlink.Request}, Data: nfgenmsg(unix.AF_UNSPEC, unix.NFNL_SUBSYS_NFTABLES)}
	}
	messages := []netlink.Message{frame(unix.NFNL_MSG_BATCH_BEGIN)}
	size := 0
	for i, c := range list {
		m := netlink.Message{
			Header: netlink.Header{Type: tablesKind(c.Kind), Flags: netlink.Request | c.flags},
			Data:   append(nfgenmsg(c.Family, 0), c.Attributes...),
		}
		if i == len(list)-1 {
			m.Header.Flags |= netlink.Acknowledge // it comes behind every error
		}
		size += len(m.Data) + unix.NLMSG_HDRLEN
		messages = append(messages, m)
	}
	messages = append(messages, frame(unix.NFNL_MSG_BATCH_END))
	// One message to the kernel takes all: the socket's buffer must hold it.
	const room = 64 << 10
	_ = n.conn.SetWriteBuffer(2*size + room)
	if _, err := n.conn.SendMessages(messages); err != nil {
		return reason(err)
	}
	_, err := n.conn.Receive()
	return reason(err)
}

// list asks for everything of a kind. Without nf_tables in the kernel there is
// nothing.
func (n *netfilter) list(get uint16, family byte, attributes []byte) ([]Change, error) {
	got, err := n.conn.Execute(netlink.Message{
		Header: netlink.Header{Type: tablesKind(get), Flags: netlink.Request | netlink.Dump},
		Data:   append(nfgenmsg(family, 0), attributes...),
	})
	if err = reason(err); err != nil {
		if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.EOPNOTSUPP) {
			return nil, nil
		}
		return nil, err
	}
	var out []Change
	for _, m := range got {
		if len(m.Data) < nfgenmsgSize || m.Header.Type>>8 != unix.NFNL_SUBSYS_NFTABLES {
			return nil, fmt.Errorf("nf_tables: an answer of %d bytes, type %d", len(m.Data), m.Header.Type)
		}
		out = append(out, Change{Kind: uint16(m.Header.Type) & 0xff, Family: m.Data[0], Attributes: m.Data[nfgenmsgSize:]})
	}
	return out, nil
}
