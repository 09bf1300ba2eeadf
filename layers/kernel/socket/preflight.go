// SPDX-License-Identifier: Apache-2.0

package socket

import (
	"bytes"
	"context"
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/io-mig/mig/layers/kernel/procfs"
	"github.com/io-mig/mig/layers/kernel/target"
	"github.com/io-mig/mig/spec/agent"
	addresses "github.com/io-mig/mig/spec/network"
	"github.com/io-mig/mig/spec/record"
)

// Preflight names what could not be carried, while the tasks run.
func (s *Subsystem) Preflight(ctx context.Context) ([]record.Finding, error) {
	tcpPolicy, err := policy(s.env, TCPRefuse)
	if err != nil {
		return nil, fmt.Errorf("socket: %w", err)
	}
	pids, err := s.env.Source.Pids()
	if err != nil {
		return nil, fmt.Errorf("socket: %w", err)
	}
	lists := map[int][]target.Descriptor{}
	ours, tcp, blind := map[uint64]bool{}, newTCPTable(), false
	for _, pid := range pids {
		list, err := s.env.Source.Look(pid)
		if err != nil {
			return nil, fmt.Errorf("socket: %w", err)
		}
		for _, d := range list {
			if d.Owner() == target.OwnerSocket {
				lists[pid] = append(lists[pid], d)
				ours[d.Link.Inode] = true
				blind = blind || d.Info.SCMFds > 0
			}
		}
		if err := tcp.add(procfs.Host().Process(pid), lists[pid]); err != nil && !procfs.IsGone(err) {
			return nil, fmt.Errorf("socket: pid %d: %w", pid, err)
		}
	}
	if tcp.mapping, err = addresses.ParseMapping(s.env.Options[addresses.OptionMap]); err != nil {
		return nil, nil // subsystem network refuses it
	}
	var out []record.Finding
	for _, pid := range pids {
		if len(lists[pid]) == 0 {
			continue
		}
		found, err := inspect(ctx, pid, lists[pid], ours, tcp, tcpPolicy, s.env.Source.Agent, blind, s.env.Source.Files.Moves)
		if procfs.IsGone(err) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("socket: pid %d: %w", pid, err)
		}
		out = append(out, found...)
	}
	return out, nil
}

// inspect looks at one process's sockets. blind and moves: see network.
func inspect(ctx context.Context, pid int, list []target.Descriptor, ours map[uint64]bool, tcp *tcpTable, policy string, hasAgent, blind, moves bool) ([]record.Finding, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	t := procfs.Host().Process(pid)
	n, err := look(t, policy, ours, tcp)
	if err != nil {
		return nil, err
	}
	n.blind, n.moves = blind, moves
	var out []record.Finding
	for i := range list {
		d := &list[i]
		how, err := n.classify(t, d)
		if err == nil {
			var lost []record.Finding
			lost, err = n.losses(t, d, how)
			out = append(out, lost...)
		}
		if procfs.IsGone(err) || isOther(err) {
			continue
		}
		r, ok := isRefusal(err)
		if ok && hasAgent && n.toAgent(d) {
			continue // the shim ends it before the container is stopped
		}
		if err != nil && !ok {
			return nil, fmt.Errorf("fd %d: %w", d.FD, err)
		}
		if ok {
			out = append(out, record.Finding{Pid: d.Holder, FD: d.FD, Subsystem: Name, What: r.what, Why: r.why, Remedy: r.remedy, Passing: r.passing()})
		}
	}
	return out, nil
}

// isOther: the descriptor was closed, or leads to another file by now.
func isOther(err error) bool {
	for _, e := range []error{unix.ENODATA, unix.EOPNOTSUPP, unix.EBADF, unix.ENOTSOCK, unix.ENOPROTOOPT} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

// toAgent: the other end is the shim's, to which an application's agent is
// connected.
func (n *network) toAgent(d *target.Descriptor) bool {
	u := n.unix[uint32(d.Link.Inode)]
	if u == nil || n.ours[uint64(u.peer)] {
		return false
	}
	peer := n.unix[u.peer]
	return peer != nil && bytes.HasSuffix(bytes.TrimRight(peer.name, "\x00"), []byte("/"+agent.Socket))
}
