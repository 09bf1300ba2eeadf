// SPDX-License-Identifier: Apache-2.0

package socket_test

import (
	"testing"

	"github.com/io-mig/mig/layers/kernel/kerneltest"
	"github.com/io-mig/mig/layers/kernel/socket"
)

// TestManyConnections: a server's connections move at once.
func TestManyConnections(t *testing.T) {
	c := kerneltest.Start(t, kerneltest.Program{Source: "testdata/many.c", Args: []string{echo(t), "200"}})
	c.Verify()
	for range 3 {
		n, err := c.Next(with(map[string]string{socket.OptionTCP: socket.TCPKeep})...)
		if err != nil {
			t.Fatal(err)
		}
		n.Verify()
		c = n
	}
}
