// SPDX-License-Identifier: Apache-2.0

//go:build linux

package kerneltest_test

import (
	"errors"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/io-mig/mig/layers/control"
	"github.com/io-mig/mig/layers/kernel"
	"github.com/io-mig/mig/layers/kernel/event"
	"github.com/io-mig/mig/layers/kernel/kerneltest"
	"github.com/io-mig/mig/layers/kernel/target"
)

// TestReleasingIsLast: what others see of a copy begins before it is written down that
// a task may have run, since nobody could tell afterwards: if it fails, or that, none has,
// and all of it is taken back. What cannot be taken back comes behind, and ends nothing.
func TestReleasingIsLast(t *testing.T) {
	failure := errors.New("the cable is gone")
	for fails, want := range map[string]string{
		"":          "first second releasing open",
		"first":     "first -first",
		"second":    "first second -second -first",
		"releasing": "first second releasing -second -first",
		"open":      "first second releasing open",
		"killed":    "first second releasing open -second -first",
	} {
		t.Run(fails, func(t *testing.T) {
			var order []string
			var frame *target.Frame
			step := func(name string) func() error {
				return func() error {
					order = append(order, name)
					if name == fails {
						return failure
					}
					return nil
				}
			}
			outside := func(env target.Env) kernel.Subsystem {
				if frame = env.Frame; frame != nil {
					frame.AtRelease(step("open"))
					frame.AtRelease(func() error {
						if fails != "killed" {
							return nil
						}
						return unix.Kill(frame.Init, unix.SIGKILL)
					})
					env.Frame.AtCommit(step("first"), step("-first"))
					env.Frame.AtCommit(step("second"), step("-second"))
					env.Frame.Releasing = step("releasing")
				}
				return event.New(env)
			}
			program := kerneltest.Start(t, kerneltest.Program{Source: "testdata/dirty.c", Args: []string{"1", "1", "-1"}})
			constructors := append(whole[:len(whole)-1:len(whole)-1], outside)
			copied, _, err := program.Move(control.StopAndCopy, constructors...)
			if got := strings.Join(order, " "); got != want {
				t.Errorf("%s, want %s", got, want)
			}
			switch fails {
			case "", "open":
				if err != nil {
					t.Fatal(err)
				}
				copied.Verify()
			case "killed":
				if err == nil || frame.LetGo() {
					t.Errorf("a task may have run: %v, %v", frame.LetGo(), err)
				}
			default:
				if !errors.Is(err, failure) {
					t.Errorf("%v, want %v", err, failure)
				}
			}
		})
	}
}
