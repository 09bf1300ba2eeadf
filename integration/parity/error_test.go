// SPDX-License-Identifier: Apache-2.0

package parity

import (
	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/io-mig/mig/integration/internal/image"
)

// errorOperations must fail, in the same way and with the cause named.
var errorOperations = []operation{
	{name: "error-missing-program", do: func(p *probe) {
		p.fails("executable file not found in $PATH", p.runArgs([]string{"--rm"}, "no-such-program")...)
		p.await("none")
	}},
	{name: "error-missing-path", do: func(p *probe) {
		p.fails("no such file or directory", p.runArgs([]string{"--rm"}, "/no/such/program")...)
	}},
	{name: "error-not-executable", do: func(p *probe) {
		p.fails("permission denied", p.runArgs([]string{"--rm"}, "/etc/passwd")...)
	}},
	{name: "error-directory", do: func(p *probe) {
		p.fails("/tmp", p.runArgs([]string{"--rm"}, "/tmp")...)
	}},
	{name: "error-mount-source", do: func(p *probe) {
		p.fails("/no/such/source", p.runArgs([]string{"--rm", "--mount", "type=bind,src=/no/such/source,dst=/x,options=rbind"}, "true")...)
	}},
	{name: "error-namespace-path", do: func(p *probe) {
		p.fails("/no/such/ns", p.runArgs([]string{"--rm", "--with-ns", "network:/no/such/ns"}, "true")...)
	}},
	{name: "error-missing-container", do: func(p *probe) {
		p.fails("not found", "tasks", "start", p.id)
		p.fails("not found", "tasks", "kill", p.id)
		p.fails("not found", "tasks", "exec", "--exec-id", "e", p.id, "true")
		p.fails("not found", "containers", "info", p.id)
		p.fails("not found", "tasks", "pause", p.id)
	}},
	{name: "error-missing-image", do: func(p *probe) {
		p.fails("not found", "run", "--rm", "--runtime", p.runtime, "mig.test/none:1", p.id, "true")
	}},
	{name: "error-duplicate-container", do: func(p *probe) {
		p.sleeper()
		p.fails("already exists", p.runArgs([]string{"--detach"}, "true")...)
		p.record("status: %s", p.status())
	}},
	{name: "error-double-start", do: func(p *probe) {
		p.sleeper()
		p.fails("already exists", "tasks", "start", "--detach", p.id)
		p.record("status: %s", p.status())
	}},
	{name: "error-delete-running-task", do: func(p *probe) {
		p.sleeper()
		p.fails("must be stopped before deletion", "tasks", "delete", p.id)
		p.record("status: %s", p.status())
	}},
	{name: "error-delete-running-container", do: func(p *probe) {
		p.sleeper()
		p.fails("cannot delete a non stopped container", "containers", "delete", p.id)
		p.record("status: %s", p.status())
	}},
	{name: "error-kill-stopped", do: func(p *probe) {
		p.start(nil, "true")
		p.await("STOPPED")
		p.fails("process already finished", "tasks", "kill", p.id)
	}},
	{name: "error-kill-missing-exec", do: func(p *probe) {
		p.sleeper()
		p.fails("not found", "tasks", "kill", "--exec-id", "none", p.id)
	}},
	{name: "error-bad-signal", do: func(p *probe) {
		p.sleeper()
		p.fails("invalid signal", "tasks", "kill", "--signal", "SIGNOTHING", p.id)
	}},
	{name: "error-pause-twice", do: func(p *probe) {
		p.sleeper()
		p.must("tasks", "pause", p.id)
		result := p.quiet("tasks", "pause", p.id)
		p.record("second pause: exit %d, status %s", result.Code, p.status())
		p.must("tasks", "resume", p.id)
	}},
	{name: "error-pause-stopped", do: func(p *probe) {
		p.start(nil, "true")
		p.await("STOPPED")
		result := p.quiet("tasks", "pause", p.id)
		p.record("pause of a stopped task: exit %d, status %s", result.Code, p.status())
	}},
	{name: "error-resume-running", do: func(p *probe) {
		p.sleeper()
		result := p.quiet("tasks", "resume", p.id)
		p.record("resume of a running task: exit %d, status %s", result.Code, p.status())
	}},
	{name: "error-exec-missing-program", do: func(p *probe) {
		p.sleeper()
		p.fails("executable file not found in $PATH", "tasks", "exec", "--exec-id", "e", p.id, "no-such-program")
		p.exec(nil, "echo", "the id is free again")
	}},
	{name: "error-exec-missing-cwd", do: func(p *probe) {
		p.sleeper()
		p.fails("/no/such/dir", "tasks", "exec", "--exec-id", "e", "--cwd", "/no/such/dir", p.id, "pwd")
	}},
	{name: "error-exec-duplicate", do: func(p *probe) {
		p.sleeper()
		p.must("tasks", "exec", "--detach", "--exec-id", "e", p.id, "sleep", "1000")
		p.fails("already exists", "tasks", "exec", "--exec-id", "e", p.id, "true")
	}},
	{name: "error-exec-paused", do: func(p *probe) {
		p.sleeper()
		p.must("tasks", "pause", p.id)
		p.fails("paused", "tasks", "exec", "--exec-id", "e", p.id, "true")
		p.must("tasks", "resume", p.id)
	}},
	{name: "error-exec-stopped", do: func(p *probe) {
		p.start(nil, "true")
		p.await("STOPPED")
		result := p.quiet("tasks", "exec", "--exec-id", "e", p.id, "true")
		p.record("exec in a stopped task: exit %d, status %s", result.Code, p.status())
	}},
	{name: "error-metrics-stopped", do: func(p *probe) {
		p.start(nil, "true")
		p.await("STOPPED")
		result := p.quiet("tasks", "metrics", p.id)
		p.record("metrics of a stopped task: exit %d", result.Code)
	}},
	{name: "error-bad-capability", do: func(p *probe) {
		result := p.quiet(p.runArgs([]string{"--rm", "--cap-add", "CAP_NOTHING"}, "grep", "^CapEff", "/proc/self/status")...)
		p.record("exit %d: %s", result.Code, result.Stdout)
	}},
	{name: "error-no-process", do: specFails("args", func(s *specs.Spec) { s.Process.Args = nil })},
	{name: "error-no-rootfs", do: specFails("rootfs", func(s *specs.Spec) { s.Root.Path = "/no/such/rootfs" })},
	{name: "error-after-failure", do: func(p *probe) {
		// A failed create leaves nothing that stands in a second one's way.
		p.quiet(p.runArgs([]string{"--rm"}, "no-such-program")...)
		p.quiet("containers", "delete", p.id)
		p.sh("echo works")
	}},
	{name: "error-killed-while-created", do: func(p *probe) {
		p.ctr("run", "--rm", "--runtime", p.runtime, "--pid-file", "/no/such/dir/pid", image.Busybox.Name, p.id, "true")
		p.quiet("tasks", "delete", "--force", p.id)
		p.await("none")
	}},
}
