// SPDX-License-Identifier: Apache-2.0

package parity

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/containerd/console"
)

// terminal is ctr on a pseudo-terminal of 30 rows and 100 columns, as a
// person uses it.
type terminal struct {
	p      *probe
	cmd    *exec.Cmd
	master console.Console

	mu     sync.Mutex
	screen bytes.Buffer
	done   chan struct{} // closed at the end of the output
}

// sized is shell that waits for the terminal's size. Ctr sends it some time
// after it has started the process, and logs an error where it comes too late.
const sized = `until [ "$(stty size 2>/dev/null)" = '30 100' ]; do sleep 0.02; done; `

// onTerminal starts ctr; the caller must call end.
func (p *probe) onTerminal(args ...string) *terminal {
	p.t.Helper()
	master, slavePath, err := console.NewPty()
	if err != nil {
		p.t.Fatal(err)
	}
	if err := master.Resize(console.WinSize{Height: 30, Width: 100}); err != nil {
		p.t.Fatal(err)
	}
	cmd := p.host.CtrCommand(p.t.Context(), args...)
	tty, err := os.OpenFile(slavePath, os.O_RDWR|syscall.O_NOCTTY, 0)
	if err != nil {
		p.t.Fatal(err)
	}
	defer tty.Close()
	cmd.Stdin, cmd.Stdout, cmd.Stderr = tty, tty, tty
	cmd.SysProcAttr.Setpgid = false
	cmd.SysProcAttr.Setsid, cmd.SysProcAttr.Setctty = true, true
	if err := cmd.Start(); err != nil {
		p.t.Fatal(err)
	}
	term := &terminal{p: p, cmd: cmd, master: master, done: make(chan struct{})}
	go term.read()
	return term
}

func (term *terminal) read() {
	defer close(term.done)
	buffer := make([]byte, 4096)
	for {
		n, err := term.master.Read(buffer)
		term.mu.Lock()
		term.screen.Write(buffer[:n])
		term.mu.Unlock()
		if err != nil { // EIO once the last holder of the slave is gone
			return
		}
	}
}

func (term *terminal) text() string {
	term.mu.Lock()
	defer term.mu.Unlock()
	return term.screen.String()
}

// expect waits for a text on the screen.
func (term *terminal) expect(text string) {
	term.p.t.Helper()
	term.p.eventually("on the terminal: "+text, func() bool { return strings.Contains(term.text(), text) })
	fmt.Fprintf(&term.p.detail, "the terminal shows %q\n", term.text())
}

func (term *terminal) typeText(text string) {
	if _, err := io.WriteString(term.master, text); err != nil {
		term.p.t.Error(err)
	}
}

// end waits for ctr and records its exit status and the screen.
func (term *terminal) end() {
	term.p.t.Helper()
	timer := time.AfterFunc(patience, func() { _ = term.cmd.Process.Kill() })
	defer timer.Stop()
	_ = term.cmd.Wait()
	<-term.done
	_ = term.master.Close()
	term.p.record("on a terminal, ctr %s: exit %d", strings.Join(term.cmd.Args[5:], " "), term.cmd.ProcessState.ExitCode())
	term.p.record("%s", term.text())
}

// resize changes the window of the terminal that ctr runs on.
func (term *terminal) resize(rows, columns uint16) {
	if err := term.master.Resize(console.WinSize{Height: rows, Width: columns}); err != nil {
		term.p.t.Error(err)
	}
}
