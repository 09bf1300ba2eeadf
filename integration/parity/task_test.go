// SPDX-License-Identifier: Apache-2.0

package parity

import (
	"context"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
)

// trapper starts a container that reports signals into a file of p.dir.
func (p *probe) trapper() string {
	p.t.Helper()
	p.start([]string{"--mount", "type=bind,src=" + p.dir + ",dst=/out,options=rbind:rw"}, "sh", "-c",
		`for s in HUP USR1 USR2 TERM; do trap "echo $s >>/out/log" $s; done; echo ready >/out/log; while :; do sleep 0.05; done`)
	log := filepath.Join(p.dir, "log")
	p.content(log, "ready")
	return log
}

// taskOperations drive a task through its life.
var taskOperations = []operation{
	{name: "create-start-delete", do: func(p *probe) {
		p.create(nil, "sleep", "1000")
		p.ctr("containers", "ls", "--quiet")
		p.record("status: %s", p.status())
		p.must("tasks", "start", "--detach", "--null-io", p.id)
		p.await("RUNNING")
		p.ctr("tasks", "kill", "--signal", "SIGKILL", p.id)
		p.await("STOPPED")
		p.ctr("tasks", "delete", p.id)
		p.ctr("containers", "delete", p.id)
		p.ctr("containers", "ls", "--quiet")
	}},
	{name: "start-attached", do: func(p *probe) {
		p.createScript("echo started; exit 12\n")
		p.ctr("tasks", "start", p.id)
		p.await("none")
	}},
	{name: "start-again", do: func(p *probe) {
		p.createScript("echo run >>/log; cat /log; exit 1\n")
		p.ctr("tasks", "start", p.id)
		p.ctr("tasks", "start", p.id)
	}},
	{name: "start-pid-file", do: func(p *probe) {
		p.create(nil, "sleep", "1000")
		path := filepath.Join(p.dir, "pid")
		p.must("tasks", "start", "--detach", "--null-io", "--pid-file", path, p.id)
		pid, err := os.ReadFile(path)
		p.record("%v, the task's pid: %v", err, string(pid) == p.pid())
	}},
	{name: "kill-default", do: func(p *probe) {
		log := p.trapper()
		p.ctr("tasks", "kill", p.id)
		p.content(log, "TERM")
		p.record("status: %s", p.status())
	}},
	{name: "kill-named", do: func(p *probe) {
		log := p.trapper()
		p.ctr("tasks", "kill", "--signal", "USR1", p.id)
		p.content(log, "USR1")
		p.ctr("tasks", "kill", "--signal", "SIGHUP", p.id)
		p.content(log, "HUP")
	}},
	{name: "kill-numbered", do: func(p *probe) {
		log := p.trapper()
		p.ctr("tasks", "kill", "--signal", "12", p.id)
		p.content(log, "USR2")
	}},
	{name: "kill-exit-status", do: func(p *probe) {
		p.sleeper()
		p.ctr("tasks", "kill", "--signal", "KILL", p.id)
		p.await("STOPPED")
		p.ctr("tasks", "delete", p.id)
	}},
	{name: "kill-all", do: func(p *probe) {
		p.start(nil, "sh", "-c", "sleep 1000 & sleep 1000 & wait")
		p.awaitProcesses(3)
		p.ctr("tasks", "kill", "--all", "--signal", "KILL", p.id)
		p.await("STOPPED")
	}},
	{name: "kill-host-pid-namespace", do: func(p *probe) {
		// Without a pid namespace the children outlive their parent.
		p.start([]string{"--with-ns", "pid:/proc/self/ns/pid"}, "sh", "-c", "sleep 1000 & sleep 1000 & wait")
		p.awaitProcesses(3)
		p.ctr("tasks", "kill", "--all", "--signal", "KILL", p.id)
		p.await("STOPPED")
		p.ctr("tasks", "delete", p.id)
	}},
	{name: "ps", do: func(p *probe) {
		p.start(nil, "sh", "-c", "sleep 1000 & sleep 1000 & wait")
		p.awaitProcesses(3)
		p.must("tasks", "exec", "--detach", "--exec-id", "side", p.id, "sleep", "1000")
		p.awaitProcesses(4)
		p.record("exec ids shown: %v", strings.Contains(p.must("tasks", "ps", p.id).Stdout, "side"))
	}},
	{name: "list", do: func(p *probe) {
		p.sleeper()
		p.ctr("tasks", "ls", "--quiet")
		pid := p.pid()
		_, err := os.Stat("/proc/" + pid)
		p.record("pid exists: %v", err == nil)
	}},
	{name: "pause-resume", do: func(p *probe) {
		p.sleeper()
		p.ctr("tasks", "pause", p.id)
		p.await("PAUSED")
		p.ctr("tasks", "resume", p.id)
		p.await("RUNNING")
	}},
	{name: "pause-stops-time", do: func(p *probe) {
		mount := "type=bind,src=" + p.dir + ",dst=/out,options=rbind:rw"
		p.start([]string{"--mount", mount}, "sh", "-c", "while :; do echo >>/out/log; done")
		log := filepath.Join(p.dir, "log")
		p.eventually("the loop runs", func() bool { return size(log) > 0 })
		p.must("tasks", "pause", p.id)
		before := size(log)
		p.host.Ctr(p.t.Context(), "tasks", "ls")
		p.record("grows while paused: %v", size(log) != before)
		p.must("tasks", "resume", p.id)
		p.eventually("the loop goes on", func() bool { return size(log) > before })
	}},
	{name: "pause-kill", do: func(p *probe) {
		p.sleeper()
		p.must("tasks", "pause", p.id)
		p.ctr("tasks", "kill", "--signal", "KILL", p.id)
		p.quiet("tasks", "resume", p.id) // where the signal waits for the thaw
		p.await("STOPPED")
	}},
	{name: "delete-force-paused", do: func(p *probe) {
		p.sleeper()
		p.must("tasks", "pause", p.id)
		p.quiet("tasks", "resume", p.id)
		p.ctr("tasks", "delete", "--force", p.id)
		p.await("none")
	}},
	{name: "delete-force-running", do: func(p *probe) {
		p.sleeper()
		p.ctr("tasks", "delete", "--force", p.id)
		p.await("none")
		p.ctr("containers", "delete", p.id)
	}},
	{name: "delete-stopped", do: func(p *probe) {
		p.start(nil, "sh", "-c", "exit 42")
		p.await("STOPPED")
		p.ctr("tasks", "delete", p.id)
	}},
	{name: "attach", do: func(p *probe) {
		// A first client starts the container with FIFOs and goes away.
		p.must(p.runArgs([]string{"--detach"}, "sh", "-c", "trap 'echo bye; exit 11' USR1; while :; do sleep 0.05; done")...)
		pid := p.pid()
		p.eventually("the trap is set", func() bool { return catches(pid, syscall.SIGUSR1) })
		ctx, cancel := context.WithTimeout(p.t.Context(), 2*patience)
		defer cancel()
		cmd := p.host.CtrCommand(ctx, "tasks", "attach", p.id)
		var out strings.Builder
		cmd.Stdout, cmd.Stderr = &out, &out
		if err := cmd.Start(); err != nil {
			p.t.Fatal(err)
		}
		// ctr says nothing once it is attached; a signal to it is passed on.
		p.eventually("ctr holds the FIFO", func() bool { return holdsFIFO(cmd.Process.Pid) })
		p.must("tasks", "kill", "--signal", "USR1", p.id)
		_ = cmd.Wait()
		p.record("attach: exit %d: %s", cmd.ProcessState.ExitCode(), out.String())
	}},
	{name: "two-containers", do: func(p *probe) {
		p.sleeper()
		first := p.pid()
		p.id += "-second"
		p.ids = append(p.ids, p.id)
		p.sleeper()
		p.record("two pids: %v", first != p.pid())
		p.await("RUNNING")
	}},
}

// awaitProcesses records how many processes `ctr tasks ps` shows once there
// are n.
func (p *probe) awaitProcesses(n int) {
	p.t.Helper()
	count := func() int {
		return strings.Count(p.host.Ctr(p.t.Context(), "tasks", "ps", p.id).Stdout, "\n") - 1 // a header
	}
	p.eventually("processes in the container", func() bool { return count() == n })
	p.record("%d processes", count())
}

func size(path string) int64 {
	info, err := os.Stat(path)
	if err != nil {
		return 0
	}
	return info.Size()
}

// holdsFIFO reports whether a process has opened a container's output.
func holdsFIFO(pid int) bool {
	links, _ := filepath.Glob(filepath.Join("/proc", strconv.Itoa(pid), "fd", "*"))
	for _, link := range links {
		if target, err := os.Readlink(link); err == nil && strings.HasSuffix(target, "-stdout") {
			return true
		}
	}
	return false
}
