// SPDX-License-Identifier: Apache-2.0

package parity

import (
	"context"
	"crypto/sha256"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/io-mig/mig/integration/internal/daemon"
	"github.com/io-mig/mig/integration/internal/image"
)

// runOperations are the ways to start a container and to get at its output.
var runOperations = []operation{
	{name: "run-exit-zero", do: func(p *probe) { p.run(nil, "true") }},
	{name: "run-exit-status", do: func(p *probe) { p.sh("exit 7") }},
	{name: "run-killed-by-signal", do: func(p *probe) { p.sh("kill -KILL $$") }},
	{name: "run-both-outputs", do: func(p *probe) { p.sh("echo out; echo err >&2; printf 'no newline'") }},
	{name: "run-image-command", do: func(p *probe) { p.stdin("echo from the image; exit 3\n", p.runArgs([]string{"--rm"})...) }},
	{name: "run-stdin", do: func(p *probe) { p.stdin("a\nb\n", p.runArgs([]string{"--rm"}, "sh", "-c", "cat; echo end")...) }},
	{name: "run-much-output", do: runMuchOutput},
	{name: "run-output-after-init", do: func(p *probe) { p.run(nil, "sh", "-c", "(sleep 0.3; echo late) & exit 4") }},
	{name: "run-tty", do: runTTY},
	{name: "run-tty-resize", do: runTTYResize},
	{name: "run-tty-interrupt", do: runTTYInterrupt},
	{name: "run-env", do: func(p *probe) {
		env := p.file("env", "FROM_FILE=one two\n", 0o644)
		p.sh("env | sort", "--env", "A=b", "--env", "EMPTY=", "--env-file", env)
	}},
	{name: "run-cwd", do: func(p *probe) { p.sh("pwd", "--cwd", "/var/lib") }},
	{name: "run-cwd-created", do: func(p *probe) { p.sh("pwd; ls -ld /new/dir | cut -c1-10", "--cwd", "/new/dir") }},
	{name: "run-user", only: daemon.V24, why: "ctr 1.6 has no --user", do: func(p *probe) { p.sh("id", "--user", "1000:1000") }},
	{name: "run-user-name", only: daemon.V24, why: "ctr 1.6 has no --user", do: func(p *probe) { p.sh("id; touch /root/x", "--user", "user") }},
	{name: "run-hostname", only: daemon.V24, why: "ctr 1.6 has no --hostname", do: func(p *probe) { p.sh("hostname; cat /proc/sys/kernel/hostname", "--hostname", "web-1") }},
	{name: "run-null-io", do: func(p *probe) { p.sh("echo lost; exit 5", "--null-io") }},
	{name: "run-log-uri-file", do: func(p *probe) {
		log := filepath.Join(p.dir, "log")
		p.must(p.runArgs([]string{"--detach", "--log-uri", "file://" + log}, "sh", "-c", "echo one; echo two")...)
		p.await("STOPPED")
		p.content(log, "two") // runc's shim lets the two outputs overwrite each other
	}},
	{name: "run-log-uri-binary", do: runLogBinary},
	{name: "run-pid-file", do: runPidFile},
	{name: "run-detach", do: func(p *probe) {
		p.sleeper()
		p.await("RUNNING")
		p.ctr("tasks", "kill", p.id)
		p.await("STOPPED")
		p.ctr("tasks", "delete", p.id)
		p.await("none")
	}},
	{name: "run-label", do: func(p *probe) {
		p.sleeper("--label", "colour=green")
		p.record("labels: %v", p.info().Labels["colour"])
		p.ctr("containers", "ls", "--quiet", "labels.colour==green")
	}},
	{name: "run-rootfs", do: runRootfs},
	{name: "run-rm", do: func(p *probe) {
		p.run(nil, "true")
		p.ctr("containers", "ls", "--quiet")
		p.ctr("snapshots", "info", p.id)
	}},
	{name: "run-twice-after-delete", do: func(p *probe) { p.sh("exit 1"); p.sh("exit 2") }},
}

// stdin runs ctr with an input and records the outcome. The input ends only
// once the program has written something: ctr misses an end that comes while it
// still creates the task (it learns how to pass the end on only after that). A
// notice that ctr writes about itself does not count.
func (p *probe) stdin(input string, args ...string) {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(p.t.Context(), patience)
	defer cancel()
	cmd := p.host.CtrCommand(ctx, args...)
	var out lockedBuffer
	cmd.Stdout, cmd.Stderr = &out, &out
	in, err := cmd.StdinPipe()
	if err != nil {
		p.t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		p.t.Fatal(err)
	}
	if _, err := io.WriteString(in, input); err != nil {
		p.t.Error(err)
	}
	p.eventually("output of "+strings.Join(args, " "), func() bool { return p.normalise(out.String()) != "" })
	in.Close()
	_ = cmd.Wait()
	p.record("$ ctr %s < %q: exit %d", strings.Join(args, " "), input, cmd.ProcessState.ExitCode())
	p.record("%s", out.String())
}

// runMuchOutput passes more than any pipe holds and compares it whole.
func runMuchOutput(p *probe) {
	result := p.quiet(p.runArgs([]string{"--rm"}, "sh", "-c", linger+"seq 1 200000; echo end >&2")...)
	p.record("exit %d, %d bytes, sha256 %x, stderr %q", result.Code, len(result.Stdout), sha256.Sum256([]byte(result.Stdout)), notices.ReplaceAllString(result.Stderr, ""))
}

func runTTY(p *probe) {
	term := p.onTerminal(p.runArgs([]string{"--rm", "--tty"}, "sh", "-c", sized+"tty; test -t 0 && test -t 2 && echo terminal; read line; echo got $line; exit 9")...)
	term.expect("terminal\r")
	term.typeText("hello\n")
	term.end()
}

// runTTYResize changes the size again and again: ctr passes it on only once it
// listens, some time after the container has started. The program ends only
// when told to, so that no change meets its end.
func runTTYResize(p *probe) {
	term := p.onTerminal(p.runArgs([]string{"--rm", "--tty"}, "sh", "-c", "echo ready; until [ \"$(stty size 2>/dev/null)\" = '41 133' ]; do sleep 0.05; done; echo resized; read line; exit 3")...)
	term.expect("ready")
	p.eventually("the new size in the container", func() bool {
		term.resize(40, 132)
		time.Sleep(100 * time.Millisecond)
		term.resize(41, 133)
		time.Sleep(200 * time.Millisecond)
		return strings.Contains(term.text(), "resized")
	})
	term.typeText("\n")
	term.end()
}

// runTTYInterrupt types a control-C: the line discipline of the container's
// terminal has to turn it into a signal.
func runTTYInterrupt(p *probe) {
	term := p.onTerminal(p.runArgs([]string{"--rm", "--tty"}, "sh", "-c", sized+"trap 'echo interrupted; exit 130' INT; echo ready; while :; do sleep 0.05; done")...)
	term.expect("ready")
	term.typeText("\x03")
	term.end()
}

// logger is a logging binary after containerd's protocol: descriptors 3 and 4
// are the container's outputs, closing 5 says that it is ready. It is killed
// soon after the task is deleted, so it must not wait for the outputs' ends.
const logger = `#!/bin/sh
exec 5>&-
dir=$(dirname "$0")
echo "container $CONTAINER_ID namespace $CONTAINER_NAMESPACE" >"$dir/who"
cat <&3 >"$dir/out" &
cat <&4 >"$dir/err"
wait
`

func runLogBinary(p *probe) {
	binary := p.file("logger", logger, 0o755)
	p.must(p.runArgs([]string{"--detach", "--log-uri", "binary://" + binary}, "sh", "-c", "echo to out; echo to err >&2; exit 3")...)
	p.await("STOPPED")
	p.content(filepath.Join(p.dir, "who"), p.id)
	p.content(filepath.Join(p.dir, "out"), "to out")
	p.content(filepath.Join(p.dir, "err"), "to err")
	p.ctr("tasks", "delete", p.id)
}

func runPidFile(p *probe) {
	path := filepath.Join(p.dir, "pid")
	p.sleeper("--pid-file", path)
	content, err := os.ReadFile(path)
	p.record("pid file: %v, holds the task's pid: %v", err, strings.TrimSpace(string(content)) == p.pid())
}

// runRootfs runs from a directory instead of a snapshot.
func runRootfs(p *probe) {
	root := p.rootfs()
	p.ctr("run", "--rm", "--runtime", p.runtime, "--env", "PATH=/bin", "--rootfs", root, p.id, "sh", "-c", "echo in a directory; echo kept >/kept")
	p.content(filepath.Join(root, "kept"), "kept")
}

// create makes a container without a task.
func (p *probe) create(flags []string, argv ...string) {
	p.t.Helper()
	args := append([]string{"containers", "create", "--runtime", p.runtime}, flags...)
	p.must(append(append(args, image.Busybox.Name, p.id), argv...)...)
}

// createScript makes a container that runs a script without a task. The ctr of
// 1.6 takes the -c of `sh -c` for a flag of its own here.
func (p *probe) createScript(script string) {
	p.t.Helper()
	p.file("script", script, 0o644)
	p.create([]string{"--mount", "type=bind,src=" + p.dir + ",dst=/out,options=rbind:rw"}, "sh", "/out/script")
}
