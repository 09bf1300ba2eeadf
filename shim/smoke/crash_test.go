// SPDX-License-Identifier: Apache-2.0

package smoke

import (
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/io-mig/mig/shim/bootstrap"
)

// The shim is killed at a random moment of a `ctr run`: while it starts, while
// libcontainer makes the container, or after it. containerd's `delete` has to
// find whatever there is.
func TestKilledDuringCreate(t *testing.T) {
	rounds := 15
	onEach(t, func(t *testing.T, d *daemon) {
		for range rounds {
			done := make(chan struct{})
			go func() {
				defer close(done)
				d.try(d.runArgs([]string{"-d"}, "one", "sleep", "1000")...)
			}()
			pid := d.awaitServer(done)
			time.Sleep(time.Duration(rand.IntN(60)) * time.Millisecond)
			if pid != 0 {
				syscall.Kill(pid, syscall.SIGKILL)
			}
			<-done
			d.eventually("containerd has cleaned up", func() bool { return !exists(d.bundle("one")) })
			d.must("container", "rm", "one")
			// If the server dies before containerd has reached it, nobody calls
			// `delete`, and a name that nobody answers stays: the next shim of
			// the group replaces it.
			if !bootstrap.Answers(d.socket("one")) {
				os.Remove(d.socket("one"))
			}
			d.expectNothingLeft()
			if t.Failed() {
				return
			}
		}
	})
}

func TestKilledShimOfPausedContainer(t *testing.T) {
	onEach(t, func(t *testing.T, d *daemon) {
		d.detached("one", nil, "sleep", "1000")
		shim := d.shimPid("one")
		d.must("task", "pause", "one")
		kill(t, shim)
		d.eventually("containerd has cleaned up", func() bool { return !exists(d.bundle("one")) })
		d.must("container", "rm", "one")
		d.expectNothingLeft()
	})
}

// awaitServer is the pid of the shim's server process, as soon as there is one;
// 0 if the run is over before.
func (d *daemon) awaitServer(done <-chan struct{}) int {
	for {
		for _, dir := range globs("/proc/[0-9]*") {
			cmdline, _ := os.ReadFile(filepath.Join(dir, "cmdline"))
			args := strings.Split(strings.TrimSuffix(string(cmdline), "\x00"), "\x00")
			last := args[len(args)-1]
			if strings.HasSuffix(args[0], "containerd-shim-mig-v1") && strings.Contains(string(cmdline), d.namespace) &&
				last != "start" && last != "delete" && last != "-info" {
				var pid int
				for _, c := range filepath.Base(dir) {
					pid = pid*10 + int(c-'0')
				}
				return pid
			}
		}
		select {
		case <-done:
			return 0
		default:
		}
	}
}

func (d *daemon) expectNothingLeft() {
	d.t.Helper()
	left := d.leftovers()
	left["processes"] = without(left["processes"], "containerd")
	for what, l := range left {
		if len(l) > 0 {
			d.t.Errorf("left behind: %s: %v", what, l)
		}
	}
}
