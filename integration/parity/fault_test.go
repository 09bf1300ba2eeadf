// SPDX-License-Identifier: Apache-2.0

package parity

import (
	"context"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"github.com/io-mig/mig/integration/internal/itest"
)

// faultOperations end a daemon or a shim under a running container.
var faultOperations = []operation{
	{name: "fault-daemon-restarts", do: func(p *probe) {
		p.sleeper()
		pid := p.pid()
		p.restart(syscall.SIGTERM)
		p.await("RUNNING")
		p.record("same pid: %v", pid == p.pid())
		p.exec(nil, "echo", "exec after the restart")
		p.ctr("tasks", "kill", p.id)
		p.await("STOPPED")
		p.ctr("tasks", "delete", p.id)
	}},
	{name: "fault-daemon-killed", do: func(p *probe) {
		p.sleeper()
		p.restart(syscall.SIGKILL)
		p.await("RUNNING")
		p.ctr("tasks", "pause", p.id)
		p.await("PAUSED")
		p.ctr("tasks", "resume", p.id)
		p.ctr("tasks", "delete", "--force", p.id)
		p.await("none")
	}},
	{name: "fault-exit-while-daemon-is-away", do: func(p *probe) {
		p.start(nil, "sh", "-c", "while [ ! -e /end ]; do sleep 0.05; done; exit 33")
		pid := p.pid()
		if err := p.host.Stop(syscall.SIGTERM); err != nil {
			p.t.Fatal(err)
		}
		if err := os.WriteFile("/proc/"+pid+"/root/end", nil, 0o644); err != nil {
			p.t.Error(err)
		}
		p.eventually("the end of the container", func() bool { return !running(pid) })
		p.restart(syscall.SIGTERM)
		// 1.6 shows it as stopped, 2.4 removes the task when it loads it.
		p.eventually("containerd notices", func() bool { return p.status() != "RUNNING" })
		p.record("status: %s", p.status())
		p.ctr("tasks", "delete", p.id)
	}},
	{name: "fault-shim-killed", do: func(p *probe) {
		p.sleeper()
		pid := p.pid()
		p.killShim()
		p.eventually("the end of the container", func() bool { return !running(pid) })
		p.eventually("containerd notices", func() bool { return p.status() != "RUNNING" })
		p.quiet("tasks", "delete", "--force", p.id)
		p.await("none")
		p.quiet("containers", "delete", p.id)
		// Runc's shim leaves state behind that often stands in the way of the
		// id's next use: here mig has to do better.
		if again := p.quiet(p.runArgs([]string{"--rm"}, "true")...); again.Code != 0 && p.runtime != itest.Runc {
			p.t.Errorf("on %s: the id cannot be used again: %v", p.runtime, again.Err())
		}
	}},
	{name: "fault-init-killed-from-outside", do: func(p *probe) {
		p.sleeper()
		pid, _ := strconv.Atoi(p.pid())
		if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
			p.t.Error(err)
		}
		p.await("STOPPED")
		p.ctr("tasks", "delete", p.id)
	}},
}

func (p *probe) restart(signal syscall.Signal) {
	p.t.Helper()
	if err := p.host.Restart(context.Background(), signal); err != nil {
		p.t.Fatal(err)
	}
}

// running reports whether a process is there and not a zombie.
func running(pid string) bool {
	stat, err := os.ReadFile("/proc/" + pid + "/stat")
	return err == nil && !strings.Contains(string(stat), ") Z ")
}

// killShim kills the shim of the container: the process that was started with
// its id and this namespace.
func (p *probe) killShim() {
	p.t.Helper()
	for _, pid := range p.shims() {
		if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
			p.t.Error(err)
		}
	}
}

func (p *probe) shims() []int {
	p.t.Helper()
	var found []int
	files, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, file := range files {
		content, _ := os.ReadFile(file)
		args := strings.Split(string(content), "\x00")
		if strings.Contains(args[0], "containerd-shim-") && follows(args, "-namespace", p.host.Namespace) && follows(args, "-id", p.id) {
			pid, _ := strconv.Atoi(filepath.Base(filepath.Dir(file)))
			found = append(found, pid)
		}
	}
	if len(found) == 0 {
		p.t.Errorf("on %s: no shim of %s", p.runtime, p.id)
	}
	return found
}

func follows(args []string, flag, value string) bool {
	for i := range len(args) - 1 {
		if args[i] == flag && args[i+1] == value {
			return true
		}
	}
	return false
}
