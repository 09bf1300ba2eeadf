// SPDX-License-Identifier: Apache-2.0

package runtime

import (
	"bufio"
	"errors"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

func TestTerminal(t *testing.T) {
	s := newSandbox(t)
	spec := s.spec("tty", sh("tty; stat -c %u $(tty); stty size; read word; echo \"<$word>\"; stty size")...)
	spec.Process.Terminal = true
	spec.Process.ConsoleSize = &specs.Box{Width: 100, Height: 30}
	spec.Process.User = specs.User{UID: 1000, GID: 1000}
	o := s.options("tty", spec)
	o.Stdio.Terminal = true
	c := s.start(o)
	console := c.Init().Console()
	must(t, console.SetReadDeadline(time.Now().Add(10*time.Second)))
	in := bufio.NewReader(console)
	line := func() string {
		l, err := in.ReadString('\n')
		must(t, err)
		return strings.TrimSpace(l)
	}
	want(t, "tty", line(), "/dev/pts/0")
	want(t, "owner", line(), "1000")
	want(t, "size", line(), "30 100")
	must(t, c.Init().Resize(90, 20))
	_, err := console.WriteString("ping\n")
	must(t, err)
	want(t, "echo of the terminal", line(), "ping")
	want(t, "answer", line(), "<ping>")
	want(t, "new size", line(), "20 90")
	want(t, "status", waitDone(t, c.Init()), 0)
	if _, err := in.ReadString('\n'); !errors.Is(err, unix.EIO) {
		t.Error("read after the end:", err)
	}
}

func TestExecTerminal(t *testing.T) {
	s := newSandbox(t)
	spec := s.spec("tty-exec", "sleep", "1000")
	c := s.start(s.options("tty-exec", spec))
	p, err := c.Exec(t.Context(), "e", process(spec, sh("tty; test -t 0 && test -t 2; echo $?")...), Stdio{Terminal: true})
	must(t, err)
	defer p.Close()
	must(t, p.Console().SetReadDeadline(time.Now().Add(10*time.Second)))
	in := bufio.NewReader(p.Console())
	name, err := in.ReadString('\n')
	must(t, err)
	if !strings.HasPrefix(name, "/dev/pts/") {
		t.Errorf("tty: %q", name)
	}
	isTTY, err := in.ReadString('\n')
	must(t, err)
	want(t, "all three are", isTTY, "0\r\n")
	if err := c.Init().Resize(1, 1); !errors.Is(err, ErrNoConsole) {
		t.Error("resize without a terminal:", err)
	}
}

// TestConsoleSocket: the master goes to the caller's socket instead.
func TestConsoleSocket(t *testing.T) {
	s := newSandbox(t)
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	must(t, err)
	pair := &consolePair{os.NewFile(uintptr(fds[0]), "ours"), os.NewFile(uintptr(fds[1]), "theirs")}
	defer pair.closeSockets()
	spec := s.spec("tty-socket", "echo", "hi")
	o := s.options("tty-socket", spec)
	o.Stdio = Stdio{Terminal: true, ConsoleSocket: pair.theirs}
	c := s.create(o)
	if c.Init().Console() != nil {
		t.Error("the process has a console, too")
	}
	console, err := pair.receive()
	must(t, err)
	defer console.Close()
	must(t, c.Start(t.Context()))
	line, err := bufio.NewReader(console).ReadString('\n')
	must(t, err)
	want(t, "output", line, "hi\r\n")
}
