// SPDX-License-Identifier: Apache-2.0

package parity

import (
	"fmt"
	"strings"
	"sync"
)

// execOperations run further processes in a container.
var execOperations = []operation{
	{name: "exec-output", do: func(p *probe) { p.sleeper(); p.exec(nil, "sh", "-c", "echo out; echo err >&2; exit 5") }},
	{name: "exec-killed", do: func(p *probe) { p.sleeper(); p.exec(nil, "sh", "-c", "kill -SEGV $$") }},
	{name: "exec-status", do: func(p *probe) {
		p.sleeper("--cap-drop", "CAP_CHOWN")
		p.exec(nil, "grep", "-E", "^(Cap|NoNew|Seccomp|Uid|Gid|Groups|Umask|Sig[BIC])", "/proc/self/status")
	}},
	{name: "exec-environment", do: func(p *probe) {
		p.sleeper("--env", "A=b")
		p.exec(nil, "sh", "-c", "env | sort; pwd; id; cut -d: -f2- /proc/self/cgroup")
	}},
	{name: "exec-seccomp", do: func(p *probe) {
		p.sleeper("--seccomp")
		p.exec(nil, "sh", "-c", "grep ^Seccomp: /proc/self/status; unshare -m true")
	}},
	{name: "exec-cwd", do: func(p *probe) { p.sleeper(); p.exec([]string{"--cwd", "/var"}, "pwd") }},
	{name: "exec-user", do: func(p *probe) { p.sleeper(); p.exec([]string{"--user", "1000:1000"}, "id") }},
	{name: "exec-tty", do: func(p *probe) {
		p.sleeper()
		term := p.onTerminal("tasks", "exec", "--exec-id", "e", "--tty", p.id, "sh", "-c", sized+"test -t 1 && echo terminal; read a; echo got $a; exit 8")
		term.expect("terminal")
		term.typeText("word\n")
		term.end()
	}},
	{name: "exec-stdin", do: func(p *probe) {
		p.sleeper()
		p.stdin("x\ny\n", "tasks", "exec", "--exec-id", "e", p.id, "sh", "-c", "echo ready; wc -l")
	}},
	{name: "exec-detach", do: func(p *probe) {
		p.sleeper()
		p.ctr("tasks", "exec", "--detach", "--exec-id", "e", p.id, "touch", "/from-exec")
		p.eventually("the file of the exec", func() bool {
			return p.host.Ctr(p.t.Context(), "tasks", "exec", "--exec-id", "look", p.id, "test", "-e", "/from-exec").Code == 0
		})
	}},
	{name: "exec-many", do: execMany},
	{name: "exec-id-again", do: func(p *probe) { p.sleeper(); p.exec(nil, "echo", "one"); p.exec(nil, "echo", "two") }},
	{name: "exec-kill", do: func(p *probe) {
		p.sleeper()
		p.must("tasks", "exec", "--detach", "--exec-id", "side", p.id, "sleep", "1000")
		p.awaitProcesses(3)
		p.ctr("tasks", "kill", "--exec-id", "side", "--signal", "KILL", p.id)
		p.awaitProcesses(2)
		p.record("status: %s", p.status())
		p.ctr("tasks", "delete", "--exec-id", "side", p.id)
	}},
	{name: "exec-outlives-nothing", do: func(p *probe) {
		p.sleeper()
		p.must("tasks", "exec", "--detach", "--exec-id", "side", p.id, "sleep", "1000")
		p.ctr("tasks", "kill", "--signal", "KILL", p.id)
		p.await("STOPPED")
		p.ctr("tasks", "delete", p.id)
	}},
	{name: "exec-user-namespace", do: func(p *probe) {
		p.sleeper("--uidmap", "0:200000:65536", "--gidmap", "0:200000:65536")
		p.exec(nil, "sh", "-c", "id -u; cat /proc/self/uid_map; grep ^CapEff /proc/self/status")
	}},
}

// execMany starts processes at the same time and compares every answer.
func execMany(p *probe) {
	p.sleeper()
	const count = 8
	answers := make([]string, count)
	var group sync.WaitGroup
	for i := range count {
		group.Go(func() {
			result := p.host.Ctr(p.t.Context(), "tasks", "exec", "--exec-id", fmt.Sprint("e", i), p.id, "sh", "-c", fmt.Sprintf("echo %d; exit %d", i, i))
			answers[i] = fmt.Sprintf("%d: %s", result.Code, strings.TrimSpace(result.Stdout))
		})
	}
	group.Wait()
	p.record("%s", strings.Join(answers, "\n"))
}
