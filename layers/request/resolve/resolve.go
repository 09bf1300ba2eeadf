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
// FILLING that the copy waits for what was left behind at the switch.
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
	"github.com/io-mig/mig/layers/request/address"
	"github.com/io-mig/mig/layers/request/journal"
	"github.com/io-mig/mig/layers/request/outgoing"
	"github.com/io-mig/mig/spec/record"
	"github.com/io-mig/mig/spec/wire"
)

// Limits of one conversation.
const (
	// idle is how long the other side may say nothing.
	idle = 10 * time.Second
	// maxQuestions of one connection.
	maxQuestions = 100
)

const (
	receiver = "control"
	unknown  = "UNKNOWN"
	filling  = ", FILLING" // behind RUNNING
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
	body, err := read(conn, wire.Hello)
	if err != nil {
		return err
	}
	hello, err := wire.DecodeHello(body)
	if err == nil && (hello.Purpose != wire.Resolve || hello.Token != token) {
		err = fmt.Errorf("%w: hello of a %s connection of move %s", wire.ErrProtocol, hello.Purpose, hello.Token)
	}
	for n := 0; err == nil && n < maxQuestions && ctx.Err() == nil; n++ {
		body, err = read(conn, wire.Command)
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
	if c.To != receiver || c.Verb != handover.Commit.String() || number == 0 {
		return fmt.Errorf("%w: %q is asked to %q", wire.ErrProtocol, c.To, c.Verb)
	}
	said, whole, err := journal.AnswerWhole(dir, token)
	text := said.String()
	if said == handover.Running && !whole {
		text += filling
	}
	if errors.Is(err, journal.ErrUnknown) {
		text, err = unknown, nil
	}
	if err := conn.SetWriteDeadline(time.Now().Add(idle)); err != nil {
		return err
	}
	_, werr := conn.Write(wire.AppendAnswer(nil, number, []byte(text), err))
	return werr
}

// read reads one frame of a type.
func read(conn net.Conn, want wire.Type) ([]byte, error) {
	if err := conn.SetReadDeadline(time.Now().Add(idle)); err != nil {
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

// Ask asks the destination of a move once. Errors: journal.ErrUnknown, or it
// could not be asked.
func Ask(ctx context.Context, m address.Move) (handover.Message, error) {
	said, _, err := AskWhole(ctx, m)
	return said, err
}

// AskWhole asks beside Ask whether a copy that runs has everything.
func AskWhole(ctx context.Context, m address.Move) (said handover.Message, whole bool, err error) {
	conn, err := outgoing.Dial(ctx, m, wire.Resolve)
	if err != nil {
		return 0, false, err
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	text, err := ask(conn, m.Token)
	if err == nil {
		said, whole, err = understand(text)
	}
	if err != nil {
		return 0, false, fmt.Errorf("ask %s about move %s: %w", m.Host, m.Token, err)
	}
	return said, whole, nil
}

func ask(conn net.Conn, token wire.Token) (string, error) {
	frames := wire.Greeting{Count: 1, Purpose: wire.Resolve, Token: token}.Append(nil)
	frames, err := wire.AppendCommand(frames, 1, record.Command{To: receiver, Verb: handover.Commit.String()})
	if err != nil {
		return "", err
	}
	if err := conn.SetWriteDeadline(time.Now().Add(idle)); err != nil {
		return "", err
	}
	if _, err := conn.Write(frames); err != nil {
		return "", err
	}
	body, err := read(conn, wire.Answer)
	if err != nil {
		return "", err
	}
	_, text, failed, err := wire.DecodeAnswer(body)
	switch {
	case err != nil:
		return "", err
	case failed:
		return "", fmt.Errorf("it cannot tell: %q", text)
	}
	return string(text), nil
}

// understand reads an answer.
func understand(text string) (said handover.Message, whole bool, err error) {
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
