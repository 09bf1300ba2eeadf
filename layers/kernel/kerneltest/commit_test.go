// SPDX-License-Identifier: Apache-2.0

//go:build linux

package kerneltest_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/io-mig/mig/layers/control"
	"github.com/io-mig/mig/layers/kernel"
	"github.com/io-mig/mig/layers/kernel/event"
	"github.com/io-mig/mig/layers/kernel/kerneltest"
	"github.com/io-mig/mig/layers/kernel/target"
)

// TestReleasingIsLast: what others see of a copy begins before it is written down that
// a task may have run, since nobody could tell afterwards: if it fails, none has.
func TestReleasingIsLast(t *testing.T) {
	failure := errors.New("the cable is gone")
	for name, fails := range map[string]error{"it begins": nil, "it fails": failure} {
		t.Run(name, func(t *testing.T) {
			var order []string
			outside := func(env target.Env) kernel.Subsystem {
				if env.Frame != nil {
					env.Frame.AtCommit(func() error {
						order = append(order, "outside")
						return fails
					})
					env.Frame.Releasing = func() error {
						order = append(order, "releasing")
						return nil
					}
				}
				return event.New(env)
			}
			program := kerneltest.Start(t, kerneltest.Program{Source: "testdata/dirty.c", Args: []string{"1", "1", "-1"}})
			constructors := append(whole[:len(whole)-1:len(whole)-1], outside)
			copied, _, err := program.Move(control.StopAndCopy, constructors...)
			want := "outside releasing"
			if fails != nil {
				want = "outside"
			}
			if !errors.Is(err, fails) || strings.Join(order, " ") != want {
				t.Fatalf("%v: %v, want %s", err, order, want)
			}
			if err == nil {
				copied.Verify()
			}
		})
	}
}
