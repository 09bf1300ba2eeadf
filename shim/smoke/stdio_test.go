// SPDX-License-Identifier: Apache-2.0

package smoke

import (
	"bufio"
	"context"
	"io"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/containerd/console"
)

func TestLogURIs(t *testing.T) {
	onEach(t, func(t *testing.T, d *daemon) {
		file := d.file("logs/one.log")
		d.detached("one", []string{"--log-uri", "file://" + file}, "sh", "-c", "echo out; echo err >&2")
		d.eventually("stopped", func() bool { return d.status("one") == "STOPPED" })
		d.remove("one")
		if data, _ := os.ReadFile(file); len(data) != len("out\nerr\n") ||
			!strings.Contains(string(data), "out\n") || !strings.Contains(string(data), "err\n") {
			t.Errorf("file:// got %q", data)
		}

		// More output than a pipe holds, without a reader at its end: all of it is
		// in the file when the task is deleted.
		file = d.file("logs/much.log")
		d.detached("one", []string{"--log-uri", "file://" + file}, "sh", "-c", "yes 0123456789abcdef | head -c 1000000")
		d.eventually("stopped", func() bool { return d.status("one") == "STOPPED" })
		d.remove("one")
		if data, _ := os.ReadFile(file); len(data) != 1000000 {
			t.Errorf("%d bytes in the log, want 1000000", len(data))
		}

		// A logging program: it must be ready, and gets both streams.
		script := d.file("logger.sh")
		sink := d.file("binary.log")
		write(t, script, "#!/bin/sh\necho \"$CONTAINER_ID $CONTAINER_NAMESPACE $1 $2\" >>"+sink+
			"\nexec 5>&-\ncat <&3 >>"+sink+" &\ncat <&4 >>"+sink+"\nwait\n")
		if err := os.Chmod(script, 0o755); err != nil {
			t.Fatal(err)
		}
		d.detached("two", []string{"--log-uri", "binary://" + script + "?key=value"}, "sh", "-c", "echo out; echo err >&2")
		d.eventually("stopped", func() bool { return d.status("two") == "STOPPED" })
		d.remove("two")
		data, _ := os.ReadFile(sink)
		for _, want := range []string{"two " + d.namespace + " key value\n", "out\n", "err\n"} {
			if !strings.Contains(string(data), want) {
				t.Errorf("binary:// got %q, want %q in it", data, want)
			}
		}
	})
}

func TestTerminal(t *testing.T) {
	onEach(t, func(t *testing.T, d *daemon) {
		tty := d.terminal(d.runArgs([]string{"--rm", "-t"}, "one", "sh")...)
		// ctr tells the size only after the start.
		tty.send("until [ -n \"$(stty size 2>/dev/null)\" ]; do true; done; echo size $(stty size)\n")
		tty.expect("size 30 100")
		tty.resize(40, 120)
		tty.send(untilSize("40 120"))
		// ctr listens to SIGWINCH only after it has told the first size, and has
		// missed the signal if that came between the two.
		tty.expectAfter("size 40 120", func() { _ = tty.cmd.Process.Signal(syscall.SIGWINCH) })
		// Now it listens for certain.
		tty.resize(50, 130)
		tty.send(untilSize("50 130"))
		tty.expect("size 50 130")
		tty.send("tty; exit 5\n")
		tty.expect("/dev/pts/0")
		if code := tty.wait(); code != 5 {
			t.Errorf("exit status %d, want 5", code)
		}

		d.detached("one", nil, "sleep", "1000")
		tty = d.terminal("task", "exec", "-t", "--exec-id", "e1", "one", "sh")
		// ctr tells the size only after the start.
		tty.send("until [ -n \"$(stty size 2>/dev/null)\" ]; do true; done; echo size $(stty size)\n")
		tty.expect("size 30 100")
		tty.send("exit 6\n")
		if code := tty.wait(); code != 6 {
			t.Errorf("exec: exit status %d, want 6", code)
		}
	})
}

// untilSize is a line for a shell that waits until its terminal has a size.
func untilSize(size string) string {
	return "until [ \"$(stty size)\" = '" + size + "' ]; do true; done; echo size $(stty size)\n"
}

// terminal is ctr on a terminal of 30 x 100 characters.
type terminal struct {
	t      *testing.T
	cmd    *exec.Cmd
	master console.Console
	lines  chan string
	wait   func() int
}

func (d *daemon) terminal(args ...string) *terminal {
	d.t.Helper()
	master, slavePath, err := console.NewPty()
	if err != nil {
		d.t.Fatal(err)
	}
	slave, err := os.OpenFile(slavePath, os.O_RDWR, 0)
	if err != nil {
		d.t.Fatal(err)
	}
	defer slave.Close()
	ctx, cancel := context.WithTimeout(context.Background(), callTimeout)
	cmd := d.command(ctx, args...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = slave, slave, slave
	// SIGWINCH goes to the terminal's foreground process group.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	tty := &terminal{t: d.t, cmd: cmd, master: master, lines: make(chan string, 1000)}
	tty.resize(30, 100)
	if err := cmd.Start(); err != nil {
		d.t.Fatal(err)
	}
	go tty.read()
	tty.wait = func() int {
		defer cancel()
		cmd.Wait()
		return cmd.ProcessState.ExitCode()
	}
	d.t.Cleanup(func() { cancel(); master.Close() })
	return tty
}

func (t *terminal) read() {
	r := bufio.NewReader(t.master)
	for {
		line, err := r.ReadString('\n')
		t.lines <- line
		if err != nil {
			close(t.lines)
			return
		}
	}
}

func (t *terminal) resize(height, width uint16) {
	t.t.Helper()
	if err := t.master.Resize(console.WinSize{Height: height, Width: width}); err != nil {
		t.t.Fatal(err)
	}
}

func (t *terminal) send(text string) {
	t.t.Helper()
	if _, err := io.WriteString(t.master, text); err != nil {
		t.t.Fatal(err)
	}
}

// expect reads until a line has the text.
func (t *terminal) expect(text string) {
	t.t.Helper()
	t.expectAfter(text, func() {})
}

// expectAfter does something again and again until a line has the text.
func (t *terminal) expectAfter(text string, again func()) {
	t.t.Helper()
	var seen strings.Builder
	timeout := time.After(callTimeout)
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			again()
		case line, ok := <-t.lines:
			seen.WriteString(line)
			if strings.Contains(line, text) {
				return
			}
			if !ok {
				t.t.Fatalf("no %q in %q", text, seen.String())
			}
		case <-timeout:
			t.t.Fatalf("no %q in %q", text, seen.String())
		}
	}
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}
