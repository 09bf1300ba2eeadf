// SPDX-License-Identifier: Apache-2.0

package tty

import (
	"bytes"
	"errors"
	"os"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// pty makes a pseudoterminal; the slave does not block.
func pty(t *testing.T, edit func(*unix.Termios)) (slave, master int) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root: TIOCSTI to the terminal of somebody else")
	}
	must := func(fd int, err error) int {
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { unix.Close(fd) })
		return fd
	}
	master = must(unix.Open("/dev/ptmx", unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC|unix.O_NONBLOCK, 0))
	if err := unix.IoctlSetPointerInt(master, unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	slave = must(openPeer(master))
	modes, err := unix.IoctlGetTermios(slave, unix.TCGETS2)
	if err != nil {
		t.Fatal(err)
	}
	if edit != nil {
		edit(modes)
	}
	if err := unix.IoctlSetTermios(slave, unix.TCSETS2, modes); err != nil {
		t.Fatal(err)
	}
	return slave, master
}

// awaitInput waits until the kernel has passed on n bytes.
func awaitInput(t *testing.T, fd, n int) {
	t.Helper()
	for range 100000 {
		if got, err := unix.IoctlGetInt(fd, unix.TIOCINQ); err != nil {
			t.Fatal(err)
		} else if got == n {
			return
		}
	}
	t.Fatalf("never %d bytes", n)
}

// TestPeek: what was copied is still there, and reads as it would have.
func TestPeek(t *testing.T) {
	for name, c := range map[string]struct {
		edit   func(*unix.Termios)
		typed  string
		queued int      // as FIONREAD tells
		input  string   // as it is copied
		reads  []string // afterwards
		more   string   // typed then, completes the last
	}{
		"lines":      {typed: "one\ntwo\n", queued: 8, input: "one\ntwo\n", reads: []string{"one\n", "two\n"}},
		"incomplete": {typed: "one\rtw", queued: 4, input: "one\ntw", reads: []string{"one\n", "two\n"}, more: "o\n"},
		"erased":     {typed: "one\nsix\x7f\x7f\x7ftwo\n", queued: 8, input: "one\ntwo\n", reads: []string{"one\n", "two\n"}},
		"an end":     {typed: "one\nend\x04", queued: 7, input: "one\nend\x00", reads: []string{"one\n", "end"}},
		"literal":    {typed: "a\x16\x03b\n", queued: 4, input: "a\x03b\n", reads: []string{"a\x03b\n"}},
		"raw": {edit: func(m *unix.Termios) { m.Lflag &^= unix.ICANON | unix.ECHO | unix.ISIG; m.Iflag = 0 },
			typed: "\x03\r\x00\x1a", queued: 4, input: "\x03\r\x00\x1a", reads: []string{"\x03\r\x00\x1a"}},
	} {
		t.Run(name, func(t *testing.T) {
			slave, master := pty(t, c.edit)
			if err := writeAll(slave, []byte("out\nput")); err != nil {
				t.Fatal(err)
			}
			if err := writeAll(master, []byte(c.typed)); err != nil {
				t.Fatal(err)
			}
			awaitInput(t, slave, c.queued)
			before, _ := unix.IoctlGetTermios(slave, unix.TCGETS2)
			shown := ""
			for range 2 { // as often as one likes
				input, output, err := peek(slave, master)
				if err != nil {
					t.Fatal(err)
				}
				if string(input) != c.input || !strings.HasPrefix(string(output), "out\r\nput") {
					t.Fatalf("copied input %q and output %q", input, output)
				}
				if shown != "" && shown != string(output) {
					t.Fatalf("output %q, at first %q", output, shown)
				}
				shown = string(output)
			}
			if after, _ := unix.IoctlGetTermios(slave, unix.TCGETS2); *after != *before {
				t.Errorf("modes %+v, were %+v", after, before)
			}
			if c.more != "" {
				if err := writeAll(master, []byte(c.more)); err != nil {
					t.Fatal(err)
				}
				awaitInput(t, slave, len(strings.Join(c.reads, "")))
			}
			for _, want := range c.reads {
				b := make([]byte, 100)
				if n, err := unix.Read(slave, b); err != nil || string(b[:n]) != want {
					t.Errorf("read %q, %v, want %q", b[:max(n, 0)], err, want)
				}
			}
			rest, err := readAvailable(master)
			if err != nil || !strings.HasPrefix(string(rest), shown) {
				t.Errorf("the master reads %q, %v, want %q", rest, err, shown)
			}
		})
	}
}

// TestPeekLarge: what does not fit into the line discipline's buffer.
func TestPeekLarge(t *testing.T) {
	slave, master := pty(t, nil)
	text := bytes.Repeat([]byte("0123456789abcde\n"), 600) // OPOST adds as many \r
	if err := writeAll(slave, text); err != nil {
		t.Fatal(err)
	}
	_, output, err := peek(slave, master)
	want := bytes.ReplaceAll(text, []byte("\n"), []byte("\r\n"))
	if err != nil || !bytes.Equal(output, want) {
		t.Fatalf("%d bytes of %d: %v", len(output), len(want), err)
	}
	if rest, err := readAvailable(master); err != nil || !bytes.Equal(rest, want) {
		t.Errorf("%d bytes are left of %d: %v", len(rest), len(want), err)
	}
}

// TestPeekStopped: output that cannot be put back is not taken.
func TestPeekStopped(t *testing.T) {
	slave, master := pty(t, nil)
	if err := writeAll(slave, []byte("output")); err != nil {
		t.Fatal(err)
	}
	if _, _, e := unix.Syscall(unix.SYS_IOCTL, uintptr(slave), unix.TCXONC, unix.TCOOFF); e != 0 {
		t.Fatal(e)
	}
	if _, _, err := peek(slave, master); err == nil {
		t.Error("no error")
	}
	if rest, err := readAvailable(master); string(rest) != "output" {
		t.Errorf("left is %q, %v", rest, err)
	}
}

// TestHelperWithoutEngine: where nobody waits for the answer any more, what was
// read is put back nevertheless.
func TestHelperWithoutEngine(t *testing.T) {
	slave, master := pty(t, nil)
	if err := errors.Join(writeAll(slave, []byte("output")), writeAll(master, []byte("in\nput"))); err != nil {
		t.Fatal(err)
	}
	awaitInput(t, slave, 3)
	for range 5 {
		pid, r, err := startHelper(slave, master)
		if err != nil {
			t.Fatal(err)
		}
		r.Close()
		if _, err := syscall.Wait4(pid, nil, 0, nil); err != nil {
			t.Fatal(err)
		}
	}
	a, err := peekByHelper(slave, master)
	if err != nil || a.Error != "" || string(a.Input) != "in\nput" || !strings.HasPrefix(string(a.Output), "output") {
		t.Errorf("left is %q and %q: %s %v", a.Input, a.Output, a.Error, err)
	}
}
