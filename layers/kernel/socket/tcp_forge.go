// SPDX-License-Identifier: Apache-2.0

package socket

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"golang.org/x/sys/unix"

	"github.com/io-mig/mig/layers/kernel/packet"
)

// forgePatience bounds the wait for a segment over the loopback.
const forgePatience = 2 * time.Second

// endOther lets the kernel receive the end of the other stream once more: the
// other end, on another host, had sent it before, and had the acknowledgment. It
// must be called in the connection's network namespace.
func (r *rising) endOther() error {
	t := r.msg.Tcp
	from, to := endpoint(r.msg.Family, r.msg.Remote), endpoint(r.msg.Family, r.msg.Local)
	segment := finSegment(from, to, t.ReceiveNext, r.acknowledged)
	i, err := packet.NewInjector()
	if err != nil {
		return err
	}
	defer i.Close()
	if err := i.Forge(from.Addr(), to.Addr(), unix.IPPROTO_TCP, segment); err != nil {
		return err
	}
	for end := time.Now().Add(forgePatience); time.Now().Before(end); time.Sleep(100 * time.Microsecond) {
		b, err := get(r.fd(), unix.IPPROTO_TCP, unix.TCP_INFO, 8)
		if err != nil || len(b) < 8 {
			return fmt.Errorf("getsockopt(TCP_INFO): %d bytes: %w", len(b), err)
		}
		if finReceived(b[0]) || b[0] == stateClose {
			return nil
		}
	}
	return errors.New("the kernel does not take the segment: does a packet filter drop what comes over the loopback?")
}

// finSegment is a TCP segment that ends a stream (RFC 9293).
func finSegment(from, to netip.AddrPort, sequence, acknowledged uint32) []byte {
	be := binary.BigEndian
	b := be.AppendUint16(nil, from.Port())
	b = be.AppendUint16(b, to.Port())
	b = be.AppendUint32(b, sequence)
	b = be.AppendUint32(b, acknowledged)
	const words, fin, ack = 5, 1, 1 << 4
	b = append(b, words<<4, fin|ack)
	b = be.AppendUint16(b, 65535) // window
	b = append(b, 0, 0, 0, 0)     // checksum, urgent pointer
	be.PutUint16(b[16:], packet.Sum(from.Addr(), to.Addr(), unix.IPPROTO_TCP, b))
	return b
}
