// SPDX-License-Identifier: Apache-2.0

package itest

import (
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/io-mig/mig/integration/internal/daemon"
)

// started is when this package's tests began, for their share of its time.
var started = time.Now()

// share of a package's time that one test may take. The longest, on a loaded
// machine, needs a tenth.
const share = 3

// beforeDeadline is when a hang is reported at the latest, as the divisor of what is
// left: go test itself ends a package that takes too long, and knows nothing of shims
// and engines.
const beforeDeadline = 10

// watched are the daemons of the tests that run.
var watched struct {
	sync.Mutex
	hosts map[*Host]struct{}
}

// watch has a test that hangs end the package: with what each program that belongs
// to the test was doing, which nobody could ask later.
func (h *Host) watch(t *testing.T) {
	deadline, ok := t.Deadline()
	if !ok {
		return
	}
	watched.Lock()
	defer watched.Unlock()
	if watched.hosts == nil {
		watched.hosts = map[*Host]struct{}{}
	}
	watched.hosts[h] = struct{}{}
	patience := min(deadline.Sub(started)/share, time.Until(deadline)-time.Until(deadline)/beforeDeadline)
	alarm := time.AfterFunc(patience, func() { hung(t.Name(), patience) })
	t.Cleanup(func() {
		alarm.Stop()
		watched.Lock()
		defer watched.Unlock()
		delete(watched.hosts, h)
	})
}

// hung prints what the programs do, the most telling last, and ends this process.
// The scopes' next owner removes what it leaves.
func hung(name string, after time.Duration) {
	fmt.Fprintf(os.Stderr, "\n%s hangs, %v after it began.\n%s%s hung, %v after it began: see above what each program did.\n",
		name, after.Round(time.Second), Evidence(), name, after.Round(time.Second))
	os.Exit(1)
}

// Evidence is what the programs of all tests that run are doing, for a test that has
// waited too long, the most telling last.
func Evidence() string {
	watched.Lock()
	defer watched.Unlock()
	var b strings.Builder
	var lines []string
	for h := range watched.hosts {
		fmt.Fprintf(&b, "containerd in %s says:\n%s\n", h.Dir, h.Log())
		lines = append(lines, stacksOf(h.Daemon)...)
	}
	buf := make([]byte, 4<<20)
	lines = append(lines, digest(string(buf[:runtime.Stack(buf, true)]))...)
	for _, line := range lines {
		fmt.Fprintln(&b, line)
	}
	return b.String()
}

// stackTime is how long a program may take to write its stacks.
const stackTime = 2 * time.Second

// stacksOf asks the shims of a daemon for the stacks of their goroutines, which they
// write into containerd's log by SIGUSR1.
func stacksOf(d *daemon.Daemon) (lines []string) {
	log, err := d.WholeLog()
	if err != nil {
		return []string{err.Error()}
	}
	defer log.Close()
	_, _ = log.Seek(0, io.SeekEnd)
	networks := map[string]int{} // a process in each
	for _, p := range d.Processes() {
		lines = append(lines, p.String()+" waits in: "+p.WaitsIn())
		if p.Contained {
			networks[p.Network()] = p.Pid
		}
		if p.Name == "containerd-shim" {
			_ = syscall.Kill(p.Pid, syscall.SIGUSR1)
		}
	}
	for _, pid := range networks { // a client that waits may have lost bytes
		out, err := exec.Command("nsenter", fmt.Sprintf("--target=%d", pid), "--net", "ss", "-Htanoi").CombinedOutput()
		lines = append(lines, fmt.Sprintf("connections of process %d: %v\n%s", pid, err, out))
	}
	time.Sleep(stackTime)
	said, _ := io.ReadAll(log)
	return append(lines, digest(string(said))...)
}
