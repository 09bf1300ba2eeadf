// SPDX-License-Identifier: Apache-2.0

// Package question asks the destination of a move what became of the copy (see
// package resolve). It dials and knows TLS, which a shim leaves to its engines.
package question

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"time"

	"github.com/io-mig/mig/layers/control/handover"
	"github.com/io-mig/mig/layers/request/address"
	"github.com/io-mig/mig/layers/request/journal"
	"github.com/io-mig/mig/layers/request/outgoing"
	"github.com/io-mig/mig/layers/request/resolve"
	"github.com/io-mig/mig/spec/record"
	"github.com/io-mig/mig/spec/wire"
)

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
		said, whole, err = resolve.Understand(text)
	}
	if err != nil {
		return 0, false, fmt.Errorf("ask %s about move %s: %w", m.Host, m.Token, err)
	}
	return said, whole, nil
}

func ask(conn net.Conn, token wire.Token) (string, error) {
	frames := wire.Greeting{Count: 1, Purpose: wire.Resolve, Token: token}.Append(nil)
	frames, err := wire.AppendCommand(frames, 1, record.Command{To: resolve.Receiver, Verb: handover.Commit.String()})
	if err != nil {
		return "", err
	}
	if err := conn.SetWriteDeadline(time.Now().Add(resolve.Idle)); err != nil {
		return "", err
	}
	if _, err := conn.Write(frames); err != nil {
		return "", err
	}
	body, err := resolve.Read(conn, wire.Answer)
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

// maxAddress bounds an address, in bytes.
const maxAddress = 64 << 10

// Main asks once about the move whose address is read from in (it holds a token,
// so it is no argument, which everybody can see), and writes the answer, for
// resolve.Understand, to out.
func Main(in io.Reader, out io.Writer) error {
	text, err := io.ReadAll(io.LimitReader(in, maxAddress))
	if err != nil {
		return fmt.Errorf("address of a move: %w", err)
	}
	m, err := address.ParseMove(string(text))
	if err != nil {
		return err
	}
	said, whole, err := AskWhole(context.Background(), m)
	if err != nil && !errors.Is(err, journal.ErrUnknown) {
		return err
	}
	_, err = io.WriteString(out, resolve.Answer(said, whole, err))
	return err
}
