// SPDX-License-Identifier: Apache-2.0

package wire

import (
	"encoding/binary"
	"fmt"
	"strings"

	"github.com/io-mig/mig/spec/record"
)

// AppendCommand appends a whole Command frame. A command that breaks a limit is
// an error.
func AppendCommand(b []byte, number uint64, c record.Command) ([]byte, error) {
	if c.To == "" || len(c.To) > maxName || len(c.Verb) > maxName || len(c.Body) > MaxBody {
		return nil, fmt.Errorf("command %.64q to %.64q with %d bytes: the limits are names of %d and a body of %d bytes", c.Verb, c.To, len(c.Body), maxName, MaxBody)
	}
	b = AppendHeader(b, Command, CommandHead+len(c.To)+len(c.Verb)+len(c.Body))
	b = binary.LittleEndian.AppendUint64(b, number)
	b = append(b, byte(len(c.To)), byte(len(c.Verb)), 0, 0)
	b = append(b, c.To...)
	b = append(b, c.Verb...)
	return append(b, c.Body...), nil
}

// DecodeCommand reads what follows a Command's header. The body lies in b.
func DecodeCommand(b []byte) (number uint64, c record.Command, err error) {
	if len(b) < CommandHead {
		return 0, c, fmt.Errorf("%w: a command of %d bytes", ErrProtocol, len(b))
	}
	to, verb := int(b[8]), int(b[9])
	rest := b[CommandHead:]
	if to == 0 || to > maxName || verb > maxName || to+verb > len(rest) || len(rest)-to-verb > MaxBody || b[10]|b[11] != 0 {
		return 0, c, fmt.Errorf("%w: a command of %d bytes with names of %d and %d bytes", ErrProtocol, len(b), to, verb)
	}
	c = record.Command{To: string(rest[:to]), Verb: string(rest[to : to+verb]), Body: rest[to+verb:]}
	return binary.LittleEndian.Uint64(b), c, nil
}

// AppendAnswer appends a whole Answer frame: body, or why it failed.
func AppendAnswer(b []byte, number uint64, body []byte, failure error) []byte {
	failed := byte(0)
	if failure == nil && len(body) > MaxBody {
		failure = fmt.Errorf("an answer of %d bytes, the limit is %d", len(body), MaxBody)
	}
	if failure != nil {
		text := failure.Error()
		failed, body = 1, []byte(strings.ToValidUTF8(text[:min(len(text), MaxText)], ""))
	}
	b = AppendHeader(b, Answer, CommandHead+len(body))
	b = binary.LittleEndian.AppendUint64(b, number)
	return append(append(b, failed, 0, 0, 0), body...)
}

// DecodeAnswer reads what follows an Answer's header. failed: the body is text.
func DecodeAnswer(b []byte) (number uint64, body []byte, failed bool, err error) {
	if len(b) < CommandHead || b[8] > 1 || b[9]|b[10]|b[11] != 0 {
		return 0, nil, false, fmt.Errorf("%w: an answer: % x", ErrProtocol, b[:min(len(b), CommandHead)])
	}
	return binary.LittleEndian.Uint64(b), b[CommandHead:], b[8] == 1, nil
}

// AppendPull appends a whole Pull frame.
func AppendPull(b []byte, number uint64, p record.Pull) []byte {
	b = AppendHeader(b, Pull, PullHead+len(p.Subsystem))
	b = binary.LittleEndian.AppendUint64(b, number)
	b = binary.LittleEndian.AppendUint32(b, uint32(p.Process))
	b = binary.LittleEndian.AppendUint32(b, p.Length)
	b = binary.LittleEndian.AppendUint64(b, p.Entity)
	return append(b, p.Subsystem...)
}

// DecodePull reads what follows a Pull's header.
func DecodePull(b []byte) (number uint64, p record.Pull, err error) {
	if len(b) <= PullHead || len(b) > PullHead+record.MaxSubsystem {
		return 0, p, fmt.Errorf("%w: a pull of %d bytes", ErrProtocol, len(b))
	}
	return binary.LittleEndian.Uint64(b), record.Pull{
		Process: record.ProcessID(binary.LittleEndian.Uint32(b[8:])), Length: binary.LittleEndian.Uint32(b[12:]),
		Entity: binary.LittleEndian.Uint64(b[16:]), Subsystem: string(b[PullHead:]),
	}, nil
}
