// SPDX-License-Identifier: Apache-2.0

//go:build linux

package kerneltest

import "testing"

// RoundTrip runs a program and exports and imports it, each generation from
// the one before. After each the program must find itself unharmed. It returns
// the last generation.
func RoundTrip(t testing.TB, p Program, constructors ...Constructor) *Container {
	t.Helper()
	c := Start(t, p)
	c.Verify()
	for g := range max(1, p.Generations) {
		var err error
		if c, err = c.Next(constructors...); err != nil {
			t.Fatalf("generation %d: %v", g+1, err)
		}
		c.Verify()
	}
	return c
}

// Next is the container's next generation: exported, ended and imported. With
// LeaveRunning it first runs on and has to verify itself beside its image.
func (c *Container) Next(constructors ...Constructor) (*Container, error) {
	c.t.Helper()
	image, err := c.Export(c.program.LeaveRunning, constructors...)
	if err != nil {
		return nil, err
	}
	if c.program.LeaveRunning {
		c.Verify()
	}
	c.Stop()
	return c.Import(image, constructors...)
}
