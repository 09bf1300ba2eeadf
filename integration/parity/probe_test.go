// SPDX-License-Identifier: Apache-2.0

package parity

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/io-mig/mig/integration/internal/daemon"
	"github.com/io-mig/mig/integration/internal/image"
	"github.com/io-mig/mig/integration/internal/itest"
)

// probe runs one operation and keeps what a user of ctr would see. Both
// runtimes get the same container id, one after the other.
type probe struct {
	t       *testing.T
	host    *itest.Host
	runtime string
	id      string
	dir     string   // for the operation's files; same path for both runtimes
	ids     []string // containers to remove at the end
	lines   []string // compared
	detail  bytes.Buffer
}

// patience bounds each wait for a state; the machine may be busy.
const patience = 10 * time.Second

func newProbe(t *testing.T, host *itest.Host, runtime, name string) *probe {
	t.Helper()
	dir := filepath.Join(host.Dir, "probe")
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	return &probe{t: t, host: host, runtime: runtime, id: name, dir: dir, ids: []string{name}}
}

func (p *probe) cleanUp() {
	for _, id := range p.ids {
		p.host.Remove(id)
	}
	if err := os.RemoveAll(p.dir); err != nil {
		p.t.Error(err)
	}
}

// record adds a compared line.
func (p *probe) record(format string, args ...any) {
	text := p.normalise(fmt.Sprintf(format, args...))
	p.lines = append(p.lines, strings.Split(strings.TrimRight(text, "\n"), "\n")...)
}

// notices are lines that ctr writes about itself on some machines, with the
// time in them.
var notices = regexp.MustCompile(`(?m)^time="[^"]*" level=(info|warning) .*\r?\n`)

// times are those of ctr's other log lines.
var times = regexp.MustCompile(`time="[^"]*"`)

// normalise takes out what must differ between two runs.
func (p *probe) normalise(text string) string {
	text = notices.ReplaceAllString(text, "")
	text = times.ReplaceAllString(text, `time="T"`)
	return strings.NewReplacer(p.runtime, "RUNTIME", p.host.Namespace, "SCOPE", "\r\n", "\n").Replace(text)
}

// ctr runs ctr and records exit status and both outputs.
func (p *probe) ctr(args ...string) daemon.Result {
	p.t.Helper()
	result := p.quiet(args...)
	p.record("$ ctr %s: exit %d", strings.Join(args, " "), result.Code)
	p.record("%s", result.Stdout)
	for line := range strings.Lines(notices.ReplaceAllString(result.Stderr, "")) {
		p.record("stderr: %s", withoutWording(line))
	}
	return result
}

// withoutWording cuts the text off ctr's own error lines: a test that expects
// an error says with fails what the text must mention.
func withoutWording(line string) string {
	if strings.HasPrefix(line, "ctr: ") {
		return "ctr: ..."
	}
	if strings.Contains(line, " level=error ") {
		line, _, _ = strings.Cut(line, " error=")
	}
	return line
}

// quiet runs ctr and records nothing.
func (p *probe) quiet(args ...string) daemon.Result {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(p.t.Context(), patience)
	defer cancel()
	result := p.host.Ctr(ctx, args...)
	fmt.Fprintf(&p.detail, "$ ctr %s: exit %d, %v\n%s%s", strings.Join(args, " "), result.Code, result.Took.Round(time.Millisecond), result.Stdout, result.Stderr)
	return result
}

// must runs ctr for a step that has to succeed on both.
func (p *probe) must(args ...string) daemon.Result {
	p.t.Helper()
	result := p.quiet(args...)
	if err := result.Err(); err != nil {
		p.t.Errorf("on %s: %v", p.runtime, err)
	}
	return result
}

// fails runs ctr, which must fail, and records whether its error mentions
// the cause: people and programs search for those words.
func (p *probe) fails(cause string, args ...string) {
	p.t.Helper()
	result := p.quiet(args...)
	mentions := strings.Contains(result.Stderr+result.Stdout, cause)
	p.record("$ ctr %s: exit %d, mentions %q: %v", strings.Join(args, " "), result.Code, cause, mentions)
	if result.Code == 0 {
		p.t.Errorf("on %s: ctr %s: succeeded", p.runtime, strings.Join(args, " "))
	}
	if !mentions {
		p.t.Errorf("on %s: ctr %s: %q is not in: %s", p.runtime, strings.Join(args, " "), cause, result.Stderr)
	}
}

// runArgs are ctr's arguments for a container from the busybox image.
func (p *probe) runArgs(flags []string, argv ...string) []string {
	args := append([]string{"run", "--runtime", p.runtime}, flags...)
	return append(append(args, image.Busybox.Name, p.id), argv...)
}

// run runs a container to its end and records what it did.
func (p *probe) run(flags []string, argv ...string) daemon.Result {
	p.t.Helper()
	return p.ctr(p.runArgs(append([]string{"--rm"}, flags...), argv...)...)
}

// linger keeps a shell for a moment when it exits, with its status: at the end
// of a process containerd's client closes the FIFOs (task.Delete calls
// io.Cancel) whether ctr has read them or not, so that a busy machine loses the
// last output of any runtime.
const linger = "trap 'sleep 0.3' EXIT; "

// sh is run of a shell script.
func (p *probe) sh(script string, flags ...string) daemon.Result {
	p.t.Helper()
	return p.run(flags, "sh", "-c", linger+script)
}

// start starts a container in the background.
func (p *probe) start(flags []string, argv ...string) {
	p.t.Helper()
	p.must(p.runArgs(append([]string{"--detach", "--null-io"}, flags...), argv...)...)
}

// sleeper starts a container that obeys SIGTERM at once and does nothing, and
// waits until it does: before its trap is set, a first process ignores it.
func (p *probe) sleeper(flags ...string) {
	p.t.Helper()
	p.start(flags, "sh", "-c", "trap 'exit 15' TERM; while :; do sleep 1000 & wait $!; done")
	if p.status() == "RUNNING" {
		pid := p.pid()
		p.eventually("the trap is set", func() bool { return catches(pid, syscall.SIGTERM) })
	}
}

// catches reports whether a process has a handler for a signal: SigCgt of
// proc_pid_status(5), bit N-1 for signal N.
func catches(pid string, signal syscall.Signal) bool {
	status, _ := os.ReadFile("/proc/" + pid + "/status")
	for line := range strings.Lines(string(status)) {
		if mask, ok := strings.CutPrefix(line, "SigCgt:"); ok {
			caught, err := strconv.ParseUint(strings.TrimSpace(mask), 16, 64)
			return err == nil && caught&(1<<(signal-1)) != 0
		}
	}
	return false
}

// exec records a command in the running container.
func (p *probe) exec(flags []string, argv ...string) daemon.Result {
	p.t.Helper()
	if argv[0] == "sh" && argv[1] == "-c" {
		argv[2] = linger + argv[2]
	}
	args := append([]string{"tasks", "exec", "--exec-id", "e"}, flags...)
	return p.ctr(append(append(args, p.id), argv...)...)
}

// status returns the task's status as `ctr tasks ls` shows it, "none" without
// a task.
func (p *probe) status() string {
	for line := range strings.Lines(p.host.Ctr(context.Background(), "tasks", "ls").Stdout) {
		if fields := strings.Fields(line); len(fields) == 3 && fields[0] == p.id {
			return fields[2]
		}
	}
	return "none"
}

// pid returns the task's process id as `ctr tasks ls` shows it.
func (p *probe) pid() string {
	for line := range strings.Lines(p.host.Ctr(context.Background(), "tasks", "ls").Stdout) {
		if fields := strings.Fields(line); len(fields) == 3 && fields[0] == p.id {
			return fields[1]
		}
	}
	p.t.Errorf("on %s: no task %s", p.runtime, p.id)
	return "0"
}

// await records that the task reaches a status, or which one it stays in.
func (p *probe) await(status string) {
	p.t.Helper()
	p.eventually("status "+status, func() bool { return p.status() == status })
	p.record("status: %s", p.status())
}

// eventually waits until a condition holds.
func (p *probe) eventually(what string, holds func() bool) {
	p.t.Helper()
	for end := time.Now().Add(patience); !holds(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			p.t.Errorf("on %s: not within %v: %s", p.runtime, patience, what)
			return
		}
	}
}

// file writes a file into the operation's directory and returns its path.
func (p *probe) file(name, content string, mode os.FileMode) string {
	path := filepath.Join(p.dir, name)
	if err := os.WriteFile(path, []byte(content), mode); err != nil {
		p.t.Fatal(err)
	}
	return path
}

// content records a file's content, waiting for it to hold until.
func (p *probe) content(path, until string) {
	p.t.Helper()
	var content []byte
	p.eventually(fmt.Sprintf("%q in %s", until, path), func() bool {
		content, _ = os.ReadFile(path)
		return strings.Contains(string(content), until)
	})
	fmt.Fprintf(&p.detail, "%s holds %q\n", path, content)
	p.record("%s: %s", filepath.Base(path), content)
}
