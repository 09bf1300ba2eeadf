// SPDX-License-Identifier: Apache-2.0

// Package resolve is how a source that was cut off after COMMIT learns what
// became of its copy: it connects again, with the token, and asks the journal of
// the destination.
//
//	source                              daemon of the destination
//	  preamble (Resolve), TLS     ->
//	  Hello (Resolve, token)      ->
//	  Command control COMMIT      ->
//	                              <-    Answer READY | RUNNING | RUNNING, FILLING | ABORTED | LOST | UNKNOWN
//
// The question may be repeated. READY means that the destination is still at it,
// FILLING that the copy waits for what was left behind at the switch. This package
// answers; package question asks.
// UNKNOWN proves nothing, since a host that was started anew has forgotten.
package resolve

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"time"

	"github.com/io-mig/mig/layers/control/handover"
	"github.com/io-mig/mig/layers/request/journal"
	"github.com/io-mig/mig/spec/wire"
)

// Limits of one conversation.
const (
	// Idle is how long the other side may say nothing.
	Idle = 10 * time.Second
	// maxQuestions of one connection.
	maxQuestions = 100
)

const (
	// Receiver of the question, as a wire.Command.
	Receiver = "control"

	unknown = "UNKNOWN"
	filling = ", FILLING" // behind RUNNING
)

// Serve answers one source on a connection that is authenticated and past its
// preamble, until it ends, from the journals in dir. The connection stays the
// caller's.
func Serve(ctx context.Context, conn net.Conn, token wire.Token, dir string) error {
	stop := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	if err := serve(ctx, conn, token, dir); err != nil {
		return fmt.Errorf("resolve move %s: %w", token, err)
	}
	return nil
}

func serve(ctx context.Context, conn net.Conn, token wire.Token, dir string) error {
	body, err := Read(conn, wire.Hello)
	if err != nil {
		return err
	}
	hello, err := wire.DecodeHello(body)
	if err == nil && (hello.Purpose != wire.Resolve || hello.Token != token) {
		err = fmt.Errorf("%w: hello of a %s connection of move %s", wire.ErrProtocol, hello.Purpose, hello.Token)
	}
	for n := 0; err == nil && n < maxQuestions && ctx.Err() == nil; n++ {
		body, err = Read(conn, wire.Command)
		if errors.Is(err, io.EOF) && n > 0 {
			return nil
		}
		if err == nil {
			err = answer(conn, body, token, dir)
		}
	}
	return err
}

func answer(conn net.Conn, body []byte, token wire.Token, dir string) error {
	number, c, err := wire.DecodeCommand(body)
	if err != nil {
		return err
	}
	if c.To != Receiver || c.Verb != handover.Commit.String() || number == 0 {
		return fmt.Errorf("%w: %q is asked to %q", wire.ErrProtocol, c.To, c.Verb)
	}
	said, whole, err := journal.AnswerWhole(dir, token)
	text := Answer(said, whole, err)
	if errors.Is(err, journal.ErrUnknown) {
		err = nil
	}
	if err := conn.SetWriteDeadline(time.Now().Add(Idle)); err != nil {
		return err
	}
	_, werr := conn.Write(wire.AppendAnswer(nil, number, []byte(text), err))
	return werr
}

// Answer is the text of an answer; the only error it knows is journal.ErrUnknown.
func Answer(said handover.Message, whole bool, err error) string {
	if errors.Is(err, journal.ErrUnknown) {
		return unknown
	}
	if said == handover.Running && !whole {
		return said.String() + filling
	}
	return said.String()
}

// Read reads one frame of a type, for as long as the other side says something.
func Read(conn net.Conn, want wire.Type) ([]byte, error) {
	if err := conn.SetReadDeadline(time.Now().Add(Idle)); err != nil {
		return nil, err
	}
	var head [wire.HeaderSize]byte
	if _, err := io.ReadFull(conn, head[:]); err != nil {
		return nil, err
	}
	t, n, err := wire.DecodeHeader(head[:])
	if err != nil {
		return nil, err
	}
	const most = 8 << 10 // of what is said here
	if t != want || n > most {
		return nil, fmt.Errorf("%w: frame %d with %d bytes where frame %d belongs", wire.ErrProtocol, t, n, want)
	}
	body := make([]byte, n)
	if _, err := io.ReadFull(conn, body); err != nil {
		return nil, fmt.Errorf("frame %d: %w", t, err)
	}
	return body, nil
}

// Understand reads an answer: whole is whether a copy that runs has everything.
// Errors: journal.ErrUnknown, wire.ErrProtocol.
func Understand(text string) (said handover.Message, whole bool, err error) {
	if text == unknown {
		return 0, false, journal.ErrUnknown
	}
	text, left := strings.CutSuffix(text, filling)
	for _, m := range []handover.Message{handover.Ready, handover.Running, handover.Aborted, handover.Lost} {
		if text == m.String() {
			return m, !left, nil
		}
	}
	return 0, false, fmt.Errorf("%w: it answers %q", wire.ErrProtocol, text)
}
