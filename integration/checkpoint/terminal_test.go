// SPDX-License-Identifier: Apache-2.0

package checkpoint

import (
	"bytes"
	"io"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/containerd/console"

	"github.com/io-mig/mig/integration/internal/daemon"
	"github.com/io-mig/mig/integration/internal/image"
	"github.com/io-mig/mig/integration/internal/itest"
)

// bash is a shell with job control.
var bash = image.Image{Name: "mig.test/bash:1", Command: []string{"bash", "--norc"}, Programs: []string{"bash"}}

// screen is ctr on a pseudoterminal, as a person uses it.
type screen struct {
	t      *testing.T
	cmd    *exec.Cmd
	master console.Console

	mu   sync.Mutex
	text bytes.Buffer
	seen int           // of text, by expect
	done chan struct{} // closed at the end of the output
	once sync.Once     // end
}

// onScreen starts ctr on a terminal of that many rows and columns.
func onScreen(t *testing.T, host *itest.Host, rows, columns uint16, args ...string) *screen {
	t.Helper()
	master, path, err := console.NewPty()
	if err != nil {
		t.Fatal(err)
	}
	if err := master.Resize(console.WinSize{Height: rows, Width: columns}); err != nil {
		t.Fatal(err)
	}
	slave, err := os.OpenFile(path, os.O_RDWR|syscall.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer slave.Close()
	cmd := host.CtrCommand(t.Context(), args...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = slave, slave, slave
	cmd.SysProcAttr.Setpgid = false
	cmd.SysProcAttr.Setsid, cmd.SysProcAttr.Setctty = true, true
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	s := &screen{t: t, cmd: cmd, master: master, done: make(chan struct{})}
	go s.read()
	t.Cleanup(s.end)
	return s
}

func (s *screen) read() {
	defer close(s.done)
	b := make([]byte, 4096)
	for {
		n, err := s.master.Read(b)
		s.mu.Lock()
		s.text.Write(b[:n])
		s.mu.Unlock()
		if err != nil { // EIO once the last holder of the slave is gone
			return
		}
	}
}

// expect waits for a text behind all that was expected before.
func (s *screen) expect(text string) {
	s.t.Helper()
	for end := time.Now().Add(20 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		s.mu.Lock()
		all := s.text.String()
		at := strings.Index(all[s.seen:], text)
		if at >= 0 {
			s.seen += at + len(text)
		}
		s.mu.Unlock()
		if at >= 0 {
			return
		}
		if time.Now().After(end) {
			s.t.Fatalf("the terminal never shows %q:\n%q", text, all)
		}
	}
}

func (s *screen) typeText(text string) {
	s.t.Helper()
	if _, err := io.WriteString(s.master, text); err != nil {
		s.t.Fatal(err)
	}
}

// ask types a command and waits for an answer that is not in the command.
func (s *screen) ask(command, answer string) {
	s.t.Helper()
	s.typeText(command + "\r")
	s.expect(answer)
}

// end makes sure that ctr is gone.
func (s *screen) end() {
	s.once.Do(s.close)
}

func (s *screen) close() {
	timer := time.AfterFunc(20*time.Second, func() { _ = s.cmd.Process.Kill() })
	defer timer.Stop()
	_ = s.cmd.Wait()
	<-s.done
	_ = s.master.Close()
}

const (
	ctrlC = "\x03"
	ctrlZ = "\x1a"
)

// A shell on the container's own terminal with two stopped jobs, one of them
// an editor with text that was not written yet.
func TestCheckpointTerminal(t *testing.T) {
	itest.EachVersion(t, func(t *testing.T, version daemon.Version) {
		host := itest.Start(t, daemon.Config{Version: version}, bash)
		const id, ref = "terminal", "mig.test/terminal:1"
		t.Cleanup(func() { host.Remove(id) })
		s := onScreen(t, host, 30, 100, "run", "--tty", "--runtime", itest.Mig, bash.Name, id)
		s.expect("# ")
		s.ask("mine=$((6*7)); stty intr ^C -ixon; echo ready$mine", "ready42")
		s.typeText("sleep 1000\r")
		waitFor(t, host, id, "sleep")
		s.typeText(ctrlZ)
		s.expect("Stopped")
		s.typeText("vi /tmp/letter\r")
		s.expect("/tmp/letter")
		s.typeText("iunwritten")
		s.expect("unwritten")
		s.typeText("\x1b")
		s.expect("- /tmp/letter") // no longer inserting; ESC and the next key are two
		s.typeText(ctrlZ)
		s.expect("Stopped")
		s.ask("echo going$mine", "going42")

		save(t, host, id, ref)
		s.ask("echo still$mine; jobs", "still42") // the original runs on
		s.expect("sleep 1000")
		s.expect("vi /tmp/letter")
		host.Remove(id)

		r := onScreen(t, host, 30, 100, "containers", "restore", "--rw", "--live", id, ref)
		await(t, host, id, "RUNNING")
		if version == daemon.V16 {
			// This ctr does not stay.
			r.end()
			r = onScreen(t, host, 30, 100, "tasks", "attach", id)
		}
		r.ask("echo again$mine on $(tty)", "again42 on /dev/pts/0")
		r.ask("stty -a", "-ixon")
		r.ask("jobs; echo jo''bs", "Stopped")
		r.expect("sleep 1000")
		r.expect("vi /tmp/letter")
		r.expect("jobs")
		r.typeText("fg\r")
		r.expect("unwritten") // the editor draws itself
		r.typeText(":wq\r")
		r.ask("cat /tmp/letter; echo writ''ten", "unwritten")
		r.expect("written")
		r.typeText("fg %1\r")
		r.expect("sleep 1000")
		r.typeText(ctrlC)
		r.ask("echo sta''tus $?", "status 130")
		if err := r.master.Resize(console.WinSize{Height: 40, Width: 120}); err != nil {
			t.Fatal(err)
		}
		r.ask("until [ \"$(stty size)\" = '40 120' ]; do sleep 0.02; done; echo re''sized", "resized")
		r.ask("[ -t 0 ] && : >/dev/tty && echo te''rminal", "terminal")
		r.typeText("exit 3\r")
		r.end()
		if code := r.cmd.ProcessState.ExitCode(); code != 3 {
			t.Errorf("ctr ends with status %d", code)
		}
	})
}

// waitFor waits until a program runs in the container.
func waitFor(t *testing.T, host *itest.Host, id, name string) {
	t.Helper()
	shell(t, host, id, "until pidof "+name+" >/dev/null; do sleep 0.05; done")
}

// What was typed ahead, and nobody has read yet, is read by the copy.
func TestCheckpointTypedAhead(t *testing.T) {
	host := itest.Start(t, daemon.Config{Version: daemon.V24}, bash)
	const id, ref = "ahead", "mig.test/ahead:1"
	t.Cleanup(func() { host.Remove(id) })
	s := onScreen(t, host, 30, 100, "run", "--tty", "--runtime", itest.Mig, bash.Name, id)
	s.expect("# ")
	s.typeText("until [ -e /tmp/go ]; do sleep 0.1; done\r")
	waitFor(t, host, id, "sleep")
	s.typeText("echo typed ahe''ad\r")
	s.expect("typed ahe''ad") // the terminal's echo
	save(t, host, id, ref)
	r := onScreen(t, host, 30, 100, "containers", "restore", "--rw", "--live", "copy", ref)
	t.Cleanup(func() { host.Remove("copy") })
	for who, it := range map[string]*screen{id: s, "copy": r} {
		await(t, host, who, "RUNNING")
		shell(t, host, who, "touch /tmp/go")
		it.expect("typed ahead")
		it.typeText("exit\r")
		it.end()
	}
}
