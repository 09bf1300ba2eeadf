// SPDX-License-Identifier: Apache-2.0

package variants

import (
	"bytes"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/containerd/containerd/v2/pkg/cio"
	"github.com/containerd/containerd/v2/pkg/oci"

	"github.com/io-mig/mig/integration/internal/daemon"
)

// transcript is what a container wrote, while it is still writing.
type transcript struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (w *transcript) Write(b []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.buf.Write(b)
}

func (w *transcript) String() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.buf.String()
}

// until waits for a line.
func (w *transcript) until(t *testing.T, line string) {
	t.Helper()
	for end := time.Now().Add(15 * time.Second); !strings.Contains("\n"+w.String(), "\n"+line+"\n"); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("no line %q in:\n%s", line, w)
		}
	}
}

var tick = regexp.MustCompile(`(?m)^tick (\d+)$`)

// ticks are the numbers of the lines that tell of time.
func ticks(t *testing.T, text string) []int {
	t.Helper()
	var out []int
	for _, m := range tick.FindAllStringSubmatch(text, -1) {
		n, err := strconv.Atoi(m[1])
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, n)
	}
	return out
}

// dialogue is a container's standard streams as FIFOs, and our ends of them.
type dialogue struct {
	in       *io.PipeWriter
	out, err *transcript
	creator  cio.Creator
}

func newDialogue() *dialogue {
	d := &dialogue{out: &transcript{}, err: &transcript{}}
	r, w := io.Pipe()
	d.in = w
	d.creator = cio.NewCreator(cio.WithStreams(r, d.out, d.err))
	return d
}

func (d *dialogue) say(t *testing.T, line string) {
	t.Helper()
	if _, err := io.WriteString(d.in, line+"\n"); err != nil {
		t.Fatal(err)
	}
}

// TestStreamsFIFO: output goes on where it was, standard error too, and no
// line of input is lost, neither what was half read nor what nobody had read.
func TestStreamsFIFO(t *testing.T) {
	h := startHost(t, daemon.V24)
	first, second := newDialogue(), newDialogue()
	v := variant{args: []string{"io"}, io: first.creator}
	b := h.run(t, "talker", v)
	b.lives("at first")
	first.say(t, "one")
	first.out.until(t, "echo one")
	// The witness reads once a second, so this waits in its pipe.
	if _, err := io.WriteString(first.in, "two\nthree\nhalf a "); err != nil {
		t.Fatal(err)
	}
	time.Sleep(50 * time.Millisecond) // through the FIFO and the shim
	dir := b.checkpointExit()
	before := ticks(t, first.out.String())

	v.io = second.creator
	r := h.restore(t, "talker-again", v, dir)
	r.lives("after the restore")
	second.say(t, "line")
	second.out.until(t, "echo half a line")
	both := first.out.String() + second.out.String()
	for _, line := range []string{"echo two", "echo three"} {
		if n := strings.Count(both, line+"\n"); n != 1 {
			t.Errorf("%q was answered %d times:\n%s", line, n, both)
		}
	}
	after := ticks(t, second.out.String())
	if len(before) == 0 || len(after) == 0 || after[0] != before[len(before)-1]+1 {
		t.Errorf("the ticks go from %v to %v", before, after)
	}
	for end := time.Now().Add(10 * time.Second); !strings.Contains(second.err.String(), "error "); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("nothing comes on the standard error")
		}
	}
	r.remove()
}

// TestStreamsLeftRunning: a checkpoint takes no input from the container that
// runs on.
func TestStreamsLeftRunning(t *testing.T) {
	h := startHost(t, daemon.V24)
	d := newDialogue()
	b := h.run(t, "talker", variant{args: []string{"io"}, io: d.creator})
	b.lives("at first")
	for _, word := range []string{"one", "two", "three"} {
		d.say(t, word)
		b.checkpoint()
	}
	for _, word := range []string{"one", "two", "three"} {
		d.out.until(t, "echo "+word)
	}
	all := ticks(t, d.out.String())
	for i, n := range all {
		if n != i+1 {
			t.Fatalf("ticks %v", all)
		}
	}
	b.remove()
}

// TestStreamsLogFile is `ctr run --log-uri file:///...`: the copy appends to the
// log where the original ended.
func TestStreamsLogFile(t *testing.T) {
	h := startHost(t, daemon.V24)
	log := filepath.Join(t.TempDir(), "log")
	v := variant{args: []string{"io"}, io: cio.LogFile(log)}
	b := h.run(t, "logger", v)
	b.lives("at first")
	dir := b.checkpointExit()
	b.remove()
	text, err := os.ReadFile(log)
	if err != nil {
		t.Fatal(err)
	}
	before := len(ticks(t, string(text)))
	r := h.restore(t, "logger-again", v, dir)
	r.lives("after the restore")
	r.remove()
	if text, err = os.ReadFile(log); err != nil {
		t.Fatal(err)
	}
	all := ticks(t, string(text))
	if before == 0 || len(all) <= before {
		t.Errorf("%d ticks before the checkpoint, %d with those after it", before, len(all))
	}
	for i, n := range all {
		if n != i+1 {
			t.Fatalf("ticks %v", all)
		}
	}
}

// TestTerminal: what is typed into a restored container's terminal arrives, and
// what it writes comes out, by a client that is not ctr.
func TestTerminal(t *testing.T) {
	h := startHost(t, daemon.V24)
	screen := func(r io.Reader, w io.Writer) variant {
		return variant{
			args: []string{"io"}, spec: []oci.SpecOpts{oci.WithTTY},
			io: cio.NewCreator(cio.WithStreams(r, w, nil), cio.WithTerminal),
		}
	}
	r, w := io.Pipe()
	defer w.Close()
	b := h.run(t, "screen", screen(r, &transcript{}))
	b.lives("at first")
	dir := b.checkpoint()
	b.lives("after the checkpoint")
	b.remove()

	r, w = io.Pipe()
	defer w.Close()
	shown := &transcript{}
	b = h.restore(t, "screen", screen(r, shown), dir)
	b.lives("restored")
	if _, err := io.WriteString(w, "hello\n"); err != nil {
		t.Fatal(err)
	}
	shown.until(t, "hello\r") // the terminal's echo
	b.remove()
}
