// SPDX-License-Identifier: Apache-2.0

//go:build linux && amd64

package tracer

import "testing"

func TestSeizedThread(t *testing.T) {
	for text, want := range map[string]int{
		"running\n": 0,
		"101 0x4206 0x6cda 0x0 0x100000 0x0 0x0 0x7ffd 0x43e62d\n": 0x6cda,
		"101 0x4207 0x6cda 0x0 0x0 0x0 0x0 0x7ffd 0x43e62d\n":      0, // INTERRUPT
		"61 0x4206 0x6cda 0x0 0x0 0x0 0x0 0x7ffd 0x43e62d\n":       0,
		"101 0x4206": 0,
		"-1 0x0 0x0": 0,
		"":           0,
	} {
		if got := seizedThread(text); got != want {
			t.Errorf("%q: %d, want %d", text, got, want)
		}
	}
}
