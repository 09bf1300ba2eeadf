// SPDX-License-Identifier: Apache-2.0

package socket

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/io-mig/mig/layers/kernel/target"
	"github.com/io-mig/mig/spec/state"
)

// What waits in a unix socket is data, and what came with it: descriptors, the
// credentials of who sent it, and the name of the socket that a datagram was sent
// from. Where there is only data, it is a SocketQueue, and the copy is filled when
// it is made. Otherwise it is SocketMessages, which are sent again when every
// description exists: see deliver.go.

// unreadUnix reads the queue of a unix socket. At most one of the results is not
// empty.
func (x *exporter) unreadUnix(p *target.Process, d *target.Descriptor, fd int, msg *state.Socket) ([]*state.SocketQueue, []*state.SocketMessages, error) {
	plain := msg.State == state.SocketState_SOCKET_STATE_PAIR
	var list []*state.SocketMessage
	err := target.PeekUnix(fd, func(m *target.UnixMessage) (err error) {
		out := &state.SocketMessage{Data: m.Data}
		if !plain || msg.Type == unix.SOCK_DGRAM {
			out.Sender = m.Sender
		}
		for _, right := range m.Rights {
			id, err := x.env.Source.InFlight(right)
			if err != nil {
				return err
			}
			out.Right = append(out.Right, id)
		}
		if out.Credentials, err = credentials(p, d, m); err != nil {
			return err
		}
		plain = plain && len(out.Sender) == 0 && len(out.Right) == 0 && out.Credentials == nil
		list = append(list, out)
		return nil
	})
	if errors.Is(err, target.ErrUnseen) {
		return nil, nil, &refusal{"unix socket", err.Error(), "try again when the program has read it"}
	}
	if err != nil || len(list) == 0 {
		return nil, nil, err
	}
	if plain {
		return plainQueue(list, msg.Type == unix.SOCK_STREAM), nil, nil
	}
	return nil, inParts(list), nil
}

// plainQueue is for messages with which nothing came.
func plainQueue(list []*state.SocketMessage, stream bool) (parts []*state.SocketQueue) {
	if stream {
		for _, m := range list {
			parts = append(parts, split(m.Data)...)
		}
		return parts
	}
	for _, part := range inParts(list) {
		q := &state.SocketQueue{}
		for _, m := range part.Message {
			q.Message = append(q.Message, m.Data)
		}
		parts = append(parts, q)
	}
	return parts
}

// inParts makes records of messages.
func inParts(list []*state.SocketMessage) (parts []*state.SocketMessages) {
	open, size := &state.SocketMessages{}, 0
	for _, m := range list {
		open.Message = append(open.Message, m)
		if size += held(m); size >= queuePart {
			parts, open, size = append(parts, open), &state.SocketMessages{}, 0
		}
	}
	if len(open.Message) > 0 {
		parts = append(parts, open)
	}
	return parts
}

// held is about what a message takes in memory, in bytes.
func held(m *state.SocketMessage) int {
	const each = 64
	return each + len(m.Data) + len(m.Sender) + 8*len(m.Right)
}

// nobody is the user that the kernel tells of a message without credentials.
const nobody = 65534

// credentials tells who sent a message, as the container numbers processes and
// users; nil if the kernel does not know.
func credentials(p *target.Process, d *target.Descriptor, m *target.UnixMessage) (*state.SocketCredentials, error) {
	u := m.Credentials
	if u == nil || u.Pid == 0 && u.Uid == nobody {
		return nil, nil
	}
	if d.InFlight || len(m.Data) == 0 {
		// Only a process that has the socket can be asked, and of messages of no
		// bytes it would be told of the next one.
		return nil, &refusal{"unix socket", "it has messages that carry credentials, and is itself on its way in another socket, or they are empty", "try again when the program has read them"}
	}
	u, err := p.PeekSender(d, m.Offset)
	if err != nil {
		return nil, fmt.Errorf("who sent an unread message: %w", err)
	}
	return &state.SocketCredentials{Pid: uint32(u.Pid), Uid: u.Uid, Gid: u.Gid}, nil
}
