// SPDX-License-Identifier: Apache-2.0

//go:build linux

package kerneltest_test

import (
	"testing"

	"github.com/io-mig/mig/layers/kernel/kerneltest"
)

func TestRegistersAndInterruptedCalls(t *testing.T) {
	kerneltest.RoundTrip(t, kerneltest.Program{Source: "testdata/registers.c", Generations: many(10), LeaveRunning: true}, base...)
}
