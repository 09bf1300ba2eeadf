// SPDX-License-Identifier: Apache-2.0

//go:build linux

package kerneltest_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/io-mig/mig/layers/kernel/kerneltest"
	"github.com/io-mig/mig/layers/kernel/tracer"
)

// TestSettings carries what few programs change.
func TestSettings(t *testing.T) {
	kerneltest.RoundTrip(t, kerneltest.Program{Source: "testdata/settings.c", Generations: 3, LeaveRunning: true}, everything...)
}

// TestPersonality: bits that an image cannot ask for are refused, not lost.
func TestPersonality(t *testing.T) {
	c := kerneltest.Start(t, kerneltest.Program{Source: "testdata/settings.c", Args: []string{"compat"}})
	if _, err := c.Export(true, everything...); err == nil || !strings.Contains(err.Error(), "0x200000") {
		t.Errorf("the personality is not refused by name: %v", err)
	}
	c.Verify()
}

// TestUserDispatch: who has its system calls sent to itself would get the
// engine's, too.
func TestUserDispatch(t *testing.T) {
	c := kerneltest.Start(t, kerneltest.Program{Source: "testdata/settings.c", Args: []string{"dispatch"}})
	if _, err := c.Export(true, everything...); !errors.Is(err, tracer.ErrUserDispatch) {
		t.Errorf("syscall user dispatch is not refused by name: %v", err)
	}
	c.Verify()
}
