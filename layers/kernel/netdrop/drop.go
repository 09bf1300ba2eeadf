// SPDX-License-Identifier: Apache-2.0

//go:build linux

// Package netdrop drops, in the network namespace of the calling thread, all
// segments that arrive for named TCP connections. Without it a namespace whose
// sockets are gone, or not made yet, would answer each by a reset, and end a
// connection that is about to go on elsewhere.
//
// It is a table "mig" of nf_tables for each of IPv4 and IPv6, with a set of
// connections and one rule at the input. A connection that nobody takes out of
// it is forgotten by the kernel after a while. No program is needed, but a
// kernel with nf_tables and CAP_NET_ADMIN in the namespace's user namespace.
//
// Sources: include/uapi/linux/netfilter/nf_tables.h and nfnetlink.h,
// net/netfilter/nf_tables_api.c; nft(8) shows the table.
package netdrop

import (
	"errors"
	"fmt"
	"net/netip"
	"time"

	"golang.org/x/sys/unix"
)

// Connection is a TCP connection as its segments that arrive show it. Both
// addresses are of one family, an IPv4 address never written as one of IPv6.
type Connection struct{ Source, Destination netip.AddrPort }

// Names of what is made.
const (
	table = "mig"
	set   = "connections"
	chain = "input"
)

// Forgotten is how long a connection stays dropped if nobody lets it through: TCP
// itself gives up earlier (tcp(7), tcp_retries2) if it has anything to send.
const Forgotten = time.Hour

// rawPriority is NF_IP_PRI_RAW: before connection tracking, which should not see
// the segments either.
const rawPriority = -300

// Available tells whether the kernel has nf_tables. It changes nothing.
func Available() error {
	n, err := open()
	if err != nil {
		return err
	}
	defer n.close()
	if err := n.request(unix.NFT_MSG_GETGEN); err != nil {
		return fmt.Errorf("nf_tables of the kernel (CONFIG_NF_TABLES): %w", err)
	}
	return nil
}

// Drop begins to drop what arrives for a connection. added tells whether it was
// not dropped before.
func Drop(c Connection) (added bool, err error) {
	n, err := open()
	if err != nil {
		return false, err
	}
	defer n.close()
	list := []Connection{c}
	for _, f := range []family{v4, v6} {
		keys := f.keys(list)
		if len(keys) == 0 {
			continue
		}
		if err := n.batch(f.tableMessages()); err != nil && !errors.Is(err, unix.EEXIST) {
			return false, fmt.Errorf("nf_tables: make the table: %w", err)
		}
		err := n.batch([]message{f.element(unix.NFT_MSG_NEWSETELEM, unix.NLM_F_CREATE|unix.NLM_F_EXCL, keys[0])})
		switch {
		case errors.Is(err, unix.EEXIST):
			return false, nil
		case err != nil:
			return false, fmt.Errorf("nf_tables: add a connection: %w", err)
		}
		return true, nil
	}
	return false, fmt.Errorf("a connection from %s to %s", c.Source, c.Destination)
}

// Pass ends Drop. Connections that are not dropped, and a namespace without the
// table, are no error. The table goes with its last connection.
func Pass(list []Connection) error {
	n, err := open()
	if err != nil {
		return err
	}
	defer n.close()
	for _, f := range []family{v4, v6} {
		keys := f.keys(list)
		for _, key := range keys {
			if err := n.batch([]message{f.element(unix.NFT_MSG_DELSETELEM, 0, key)}); err != nil && !errors.Is(err, unix.ENOENT) {
				return fmt.Errorf("nf_tables: remove a connection: %w", err)
			}
		}
		if len(keys) == 0 {
			continue
		}
		if err := n.removeIfEmpty(f); err != nil {
			return fmt.Errorf("nf_tables: remove the table: %w", err)
		}
	}
	return nil
}

// removeIfEmpty deletes a table without connections, unless somebody changes the
// tables meanwhile: then it is left to them.
func (n *netlink) removeIfEmpty(f family) error {
	generation, err := n.generation()
	if err != nil {
		return err
	}
	empty, err := n.empty(f)
	if errors.Is(err, unix.ENOENT) {
		return nil
	}
	if err != nil || !empty {
		return err
	}
	err = n.batchAt(generation, []message{{unix.NFT_MSG_DELTABLE, 0, f.protocol, text(unix.NFTA_TABLE_NAME, table)}})
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ERESTART) {
		return nil
	}
	return err
}
