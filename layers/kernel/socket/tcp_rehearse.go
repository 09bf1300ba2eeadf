// SPDX-License-Identifier: Apache-2.0

package socket

import (
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"golang.org/x/sys/unix"

	"github.com/io-mig/mig/layers/kernel/netdrop"
	"github.com/io-mig/mig/layers/kernel/packet"
	"github.com/io-mig/mig/layers/kernel/target"
	"github.com/io-mig/mig/layers/kernel/tcprepair"
)

// A connection that was made in repair mode has measured no round trip: what it
// transmits first and the network loses it transmits again after three seconds
// (net/ipv4/tcp_metrics.c, tcp_init_metrics; RFC 6298, 5.7). And it may have no more
// than 10 segments on their way, also where there were many: the rest of those, which
// the other end may have or not, would wait for that time. So its queue begins with
// bytes that the other end has acknowledged before, as many segments as are wanted;
// nothing of them is transmitted. Their acknowledgment is forged when the copy begins.
// Its time stamp says that they were on their way for as long as the source had
// measured, since by what was queued in repair mode the kernel measures nothing
// (TCPCB_REPAIRED; net/ipv4/tcp_input.c, tcp_ack_update_rtt): connections without time
// stamps do without. From then on the time is what follows from that, with the
// least that the kernel has for it (0.2 s), and the window is as many segments larger.
const (
	longestRehearsed = 3000000 // microseconds; as long as without
	mostRehearsed    = 1024    // segments
)

// rehearsal is how many bytes are put in front of those that were sent.
func rehearsal(a *arrival) int {
	t := a.msg.Tcp
	if !t.Outside || !t.Timestamps || t.RoundTrip == 0 || t.RoundTrip > longestRehearsed || int(t.Unsent) > len(a.send) {
		return 0
	}
	segment := int(segmentLimit(t)) - timestampsSize
	if segment < minMSS {
		return 0
	}
	sent := len(a.send) - int(t.Unsent)
	return segment * min(max((sent+segment-1)/segment-burst, 1), mostRehearsed)
}

// fillRehearsal queues them.
func (r *rising) fillRehearsal() error {
	if err := tcprepair.Select(r.fd(), tcprepair.Send); err != nil {
		return err
	}
	return sendAll(r.fd(), make([]byte, r.rehearsed), 0)
}

// rehearseAll has the connections' acknowledgments arrive, although nothing of the
// other ends does yet.
func (s *Subsystem) rehearseAll() error {
	var list []*rising
	for _, r := range s.rising {
		if r.rehearsed > 0 {
			list = append(list, r)
		}
	}
	if len(list) == 0 {
		return nil
	}
	return target.InNamespaceFD(int(s.kept.net.Fd()), "net", func() error {
		i, err := packet.NewInjector()
		if err != nil {
			return err
		}
		defer i.Close()
		if err := i.Mark(netdrop.Admitted); err != nil {
			return err
		}
		patience := rehearsalPatience
		for _, r := range list {
			ok, err := r.rehearse(i, patience)
			if err != nil {
				return fmt.Errorf("socket: %s: %w", r.what, err)
			}
			if !ok {
				patience = 0 // the next ones will fare no better
			}
		}
		return nil
	})
}

// rehearsalPatience bounds the wait for an acknowledgment over the loopback, which the
// kernel takes while it is sent, as a rule.
const rehearsalPatience = 10 * time.Millisecond

// rehearse has one acknowledgment arrive. Where the window has not become large
// enough, what was sent is queued as such; so it is where the acknowledgment does not
// arrive (a filter may drop it): the next one of the other end does as well.
func (r *rising) rehearse(i *packet.Injector, patience time.Duration) (ok bool, err error) {
	m := r.msg
	from, to := endpoint(m.Family, m.Remote), endpoint(m.Family, m.Local)
	s := segment{sequence: m.Tcp.ReceiveNext - uint32(len(r.behind)), acknowledged: r.acknowledged, flags: tcpACK, window: r.sendWindow()}
	if s.options, err = r.echo(); err != nil {
		return false, err
	}
	if err := i.Forge(from.Addr(), to.Addr(), unix.IPPROTO_TCP, s.bytes(from, to)); err != nil {
		return false, err
	}
	for end := time.Now().Add(patience); ; time.Sleep(50 * time.Microsecond) {
		unacked, size, window, err := onTheirWay(r.fd())
		switch ok = unacked == 0; {
		case err != nil:
			return false, err
		case ok && len(r.push) <= size*max(window, burst):
			return true, nil
		case ok, time.Now().After(end):
			sent := r.push
			r.push = nil
			return ok, errors.Join(r.queueSent(sent), tcprepair.Select(r.fd(), tcprepair.NoQueue))
		}
	}
}

// onTheirWay reads of struct tcp_info tcpi_unacked, _snd_mss and _snd_cwnd.
func onTheirWay(fd int) (unacked, size, window int, err error) {
	b, err := get(fd, unix.IPPROTO_TCP, unix.TCP_INFO, 84)
	if err != nil || len(b) < 84 {
		return 0, 0, 0, fmt.Errorf("getsockopt(TCP_INFO): %d bytes: %w", len(b), err)
	}
	n := func(at int) int { return int(binary.NativeEndian.Uint32(b[at:])) }
	return n(24), n(16), n(80), nil
}

// infoMicroseconds is TCPI_OPT_USEC_TS of include/uapi/linux/tcp.h (Linux 6.7): time
// stamps are microseconds, not milliseconds.
const infoMicroseconds = 64

// echo is the option by which the other end says what time stamp it answers: the one
// of a round trip ago. Its own is 0, which the kernel compares with no later one
// (include/net/tcp.h, tcp_paws_check).
func (r *rising) echo() ([]byte, error) {
	v, err := unix.GetsockoptInt(r.fd(), unix.IPPROTO_TCP, unix.TCP_TIMESTAMP)
	if err != nil {
		return nil, fmt.Errorf("getsockopt(TCP_TIMESTAMP): %w", err)
	}
	info, err := get(r.fd(), unix.IPPROTO_TCP, unix.TCP_INFO, 8)
	if err != nil || len(info) < 8 {
		return nil, fmt.Errorf("getsockopt(TCP_INFO): %d bytes: %w", len(info), err)
	}
	trip := r.msg.Tcp.RoundTrip
	if info[5]&infoMicroseconds == 0 { // tcpi_options
		trip /= 1000
	}
	b := []byte{optionNone, optionNone, optionTimestamps, 10, 0, 0, 0, 0}
	return binary.BigEndian.AppendUint32(b, uint32(v)-trip), nil
}
