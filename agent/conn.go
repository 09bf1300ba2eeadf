// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"bufio"
	"fmt"
	"net"
	"time"

	"github.com/io-mig/mig/spec/agent"
)

// answerTime bounds how long the shim takes to answer at once.
const answerTime = 10 * time.Second

// conn is one connection.
type conn struct {
	net.Conn
	in *bufio.Reader
}

func newConn(c net.Conn) *conn { return &conn{c, agent.NewReader(c)} }

// send writes one line in one piece.
func (k *conn) send(l agent.Line) error {
	if err := k.SetWriteDeadline(time.Now().Add(answerTime)); err != nil {
		return err
	}
	_, err := k.Write([]byte(l.String() + "\n"))
	return err
}

// ask sends a line and reads the next one.
func (k *conn) ask(l agent.Line) (agent.Line, error) {
	if err := k.send(l); err != nil {
		return l, fmt.Errorf("tell the agent: %w", err)
	}
	if err := k.SetReadDeadline(time.Now().Add(answerTime)); err != nil {
		return l, err
	}
	said, err := agent.Read(k.in)
	if err != nil {
		return l, fmt.Errorf("hear the agent: %w", err)
	}
	return said, k.SetReadDeadline(time.Time{})
}
