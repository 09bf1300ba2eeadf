// SPDX-License-Identifier: Apache-2.0

package migrate

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/opencontainers/runc/libcontainer/specconv"
	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/io-mig/mig/layers/request/address"
	"github.com/io-mig/mig/layers/request/identity"
	"github.com/io-mig/mig/layers/request/identity/identitytest"
	"github.com/io-mig/mig/layers/request/incoming"
	"github.com/io-mig/mig/layers/request/journal"
	"github.com/io-mig/mig/layers/request/resolve"
	"github.com/io-mig/mig/runtime"
	"github.com/io-mig/mig/shim"
	"github.com/io-mig/mig/spec/wire"
)

// patience is how long a test waits for a state on a busy machine.
const patience = 40 * time.Second

// world is two hosts on this machine: a source with a running container, and a
// destination with as much of migd as a move needs.
type world struct {
	t        *testing.T // the one that runs now
	root     *testing.T // the one that containers belong to
	dir      string
	bundle   string
	args     []string
	acceptor *incoming.Acceptor
	addr     string
	here     string // the source's identity
	there    string // the destination's
	stranger string // that of a third host of the same authority
	src, dst *Migrator
	inDoubt  func() // of moves from here on
}

var ticker struct {
	once sync.Once
	path string
	err  error
}

// buildTicker compiles the moved program once.
func buildTicker() (string, error) {
	ticker.once.Do(func() {
		dir, err := os.MkdirTemp("", "mig-ticker-")
		if err != nil {
			ticker.err = err
			return
		}
		ticker.path = filepath.Join(dir, "ticker")
		out, err := exec.Command("cc", "-O1", "-static", "-o", ticker.path, "testdata/ticker.c").CombinedOutput()
		if err != nil {
			ticker.err = fmt.Errorf("cc: %w\n%s", err, out)
		}
	})
	return ticker.path, ticker.err
}

func newWorld(t *testing.T, args ...string) *world {
	t.Helper()
	if os.Getuid() != 0 || testing.Short() {
		t.Skip("needs root")
	}
	program, err := buildTicker()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	w := &world{t: t, root: t, dir: dir, bundle: filepath.Join(dir, "bundle"), args: args}
	for _, d := range []string{"bin", "etc", "proc", "sys", "dev", "tmp"} {
		w.must(os.MkdirAll(filepath.Join(w.bundle, "rootfs", d), 0o755))
	}
	data, err := os.ReadFile(program)
	w.must(err)
	w.must(os.WriteFile(filepath.Join(w.bundle, "rootfs/bin/ticker"), data, 0o755))
	w.must(os.WriteFile(filepath.Join(w.bundle, "config.json"), w.marshal(), 0o600))
	ca := identitytest.New(t)
	w.there, _ = ca.Host("127.0.0.1")
	w.here, _ = ca.Host("here.example")
	w.stranger, _ = ca.Host("stranger.example")
	// As in real life, not on a disk.
	journals, err := os.MkdirTemp("/run", "mig-move-test-")
	w.must(err)
	w.root.Cleanup(func() { os.RemoveAll(journals) })
	w.src, w.dst = testMigrator(journals), testMigrator(journals)
	w.listen()
	w.root.Cleanup(func() { os.RemoveAll(filepath.Join(StateDir, w.namespace())) })
	return w
}

// testMigrator has the test's own program as its engine.
func testMigrator(journals string) *Migrator {
	return &Migrator{JournalDir: journals, Engine: []string{"/proc/self/exe", "engine"}}
}

func (w *world) must(err error) {
	w.t.Helper()
	if err != nil {
		w.t.Fatal(err)
	}
}

// listen is a minimal migd.
func (w *world) listen() {
	config, err := identity.Server(w.there)
	w.must(err)
	w.acceptor, err = incoming.New(incoming.Options{
		Dir: filepath.Join(w.dir, "in"), Warn: func(err error) { w.root.Log("acceptor:", err) },
		Handle: func(ctx context.Context, conn net.Conn, p wire.Preamble) {
			c := tls.Server(conn, config)
			err := c.HandshakeContext(ctx)
			if err == nil {
				err = resolve.Serve(ctx, c, p.Token, w.dst.JournalDir)
			}
			if err != nil {
				w.root.Log("resolve:", err)
			}
		},
	})
	w.must(err)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	w.must(err)
	w.addr = l.Addr().String()
	go func() { _ = w.acceptor.Serve(l) }()
	w.root.Cleanup(func() { w.acceptor.Close() })
}

func (w *world) spec(name string) *specs.Spec {
	s := specconv.Example()
	s.Root = &specs.Root{Path: "rootfs"}
	s.Process.Terminal = false
	// Both containers have the same root, no overlay, in which nobody writes.
	s.Annotations = map[string]string{"io.mig/rootfs-base": filepath.Join(w.bundle, "rootfs")}
	s.Process.Args = append([]string{"/bin/ticker"}, w.args...)
	s.Linux.CgroupsPath = "/mig-move-test-" + filepath.Base(filepath.Dir(w.dir)) + filepath.Base(w.dir) + "-" + name
	return s
}

func (w *world) marshal() []byte {
	b, err := jsonOf(w.spec("source"))
	w.must(err)
	return b
}

// copy is one container: the source, or its copy.
type copy struct {
	w     *world
	name  string
	spec  *specs.Spec
	c     *runtime.Container
	lines chan string
	wr    *os.File
}

func (w *world) newCopy(name string) *copy {
	w.t.Helper()
	r, wr, err := os.Pipe()
	w.must(err)
	k := &copy{w: w, name: name, spec: w.spec(name), lines: make(chan string, 1000), wr: wr}
	go func() {
		s := bufio.NewScanner(r)
		for s.Scan() {
			k.lines <- s.Text()
		}
		close(k.lines)
		r.Close()
	}()
	return k
}

func (k *copy) create(frame *runtime.Frame) {
	k.w.t.Helper()
	var err error
	k.c, err = runtime.Create(k.w.root.Context(), runtime.CreateOptions{
		ID: k.name, Bundle: k.w.bundle, Root: filepath.Join(k.w.dir, "state-"+k.name), Spec: k.spec,
		Stdio: runtime.Stdio{Stdout: k.wr, Stderr: k.wr}, Frame: frame,
	})
	k.w.must(err)
	k.wr.Close()
	k.w.root.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		_ = k.c.Signal(syscall.SIGKILL, true)
		if err := k.c.Destroy(ctx); err != nil {
			k.w.root.Error("destroy:", err)
		}
		_ = k.c.Init().Close()
	})
}

// source starts the container that is to be moved.
func (w *world) source() *copy {
	w.t.Helper()
	k := w.newCopy("source")
	k.create(nil)
	w.must(k.c.Start(w.root.Context()))
	select {
	case l := <-k.lines:
		if l != "ready" {
			w.t.Fatalf("the program says %q", l)
		}
	case <-time.After(patience):
		w.t.Fatal("the program does not start")
	}
	return k
}

// destination creates a frame and starts its import, as a shim does for a
// container with the annotation.
func (w *world) destination(ctx context.Context, token wire.Token) (*copy, chan error) {
	w.t.Helper()
	k := w.newCopy("copy-" + token.String()[:6])
	return k, w.arrive(ctx, k, token)
}

// arrive fills a copy with a move.
func (w *world) arrive(ctx context.Context, k *copy, token wire.Token) chan error {
	w.t.Helper()
	path, forget, err := w.acceptor.Expect(token)
	w.must(err)
	w.root.Cleanup(forget)
	r, err := w.dst.PrepareRestore(ctx, shim.RestoreRequest{
		ID: k.name, Namespace: w.namespace(), Bundle: w.bundle, Spec: k.spec,
		Image: address.Incoming{Socket: path, TLS: w.there, From: "here.example"}.String(),
	})
	w.must(err)
	k.create(r.Frame())
	done := make(chan error, 1)
	go func() {
		err := r.Run(ctx, k.c)
		if err != nil {
			if kill := k.c.Signal(syscall.SIGKILL, true); kill != nil && !errors.Is(kill, runtime.ErrNotRunning) {
				w.t.Error("kill the frame:", kill)
			}
		}
		_ = r.Close()
		done <- err
	}()
	return done
}

func itoa(n int) string { return strconv.Itoa(n) }

func (w *world) namespace() string { return "mig-move-test-" + filepath.Base(filepath.Dir(w.dir)) }

// move asks the source's shim.
func (w *world) move(ctx context.Context, k *copy, m address.Move) chan error {
	done := make(chan error, 1)
	go func() {
		done <- w.src.Checkpoint(ctx, shim.CheckpointRequest{
			ID: k.name, Namespace: w.namespace(), Bundle: w.bundle, Container: k.c, Spec: k.spec, Image: m.String(), Exit: true, InDoubt: w.inDoubt,
		})
	}()
	return done
}

func (w *world) address(token wire.Token) address.Move {
	return address.Move{Host: w.addr, Token: token, TLS: w.here}
}

// report asks the program for a line, and fails if it does not answer.
func (k *copy) report() (ticks, gap uint64, memory string) {
	k.w.t.Helper()
	k.w.must(k.c.Signal(syscall.SIGUSR1, false))
	select {
	case l, ok := <-k.lines:
		var pid int
		if _, err := fmt.Sscanf(l, "ticks %d gap %d memory %s pid %d", &ticks, &gap, &memory, &pid); err != nil || !ok || pid != 1 {
			k.w.t.Fatalf("%s: the program says %q: %v", k.name, l, err)
		}
	case <-time.After(patience):
		k.w.t.Fatalf("%s: the program does not answer: %s", k.name, k.state())
	}
	return ticks, gap, memory
}

func (k *copy) state() string {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", k.c.Init().Pid()))
	s, serr := k.c.Status()
	return fmt.Sprintf("%v %v\n%s %v", s, serr, b, err)
}

// runs reports whether the container's program is alive and not frozen.
func (k *copy) runs() bool {
	s, err := k.c.Status()
	k.w.must(err)
	return s.State == runtime.StateRunning
}

// gone waits until nothing of the container lives.
func (k *copy) gone() {
	k.w.t.Helper()
	select {
	case <-k.c.Init().Done():
	case <-time.After(patience):
		k.w.t.Fatalf("%s does not end: %s", k.name, k.state())
	}
}

func (w *world) await(what string, done chan error) error {
	w.t.Helper()
	select {
	case err := <-done:
		return err
	case <-time.After(patience):
		w.t.Fatalf("%s: does not end; %s", what, w.journals())
		return nil
	}
}

// journals are the entries, for messages.
func (w *world) journals() string {
	var b strings.Builder
	es, _ := os.ReadDir(w.src.JournalDir)
	for _, e := range es {
		name, side, _ := strings.Cut(e.Name(), ".")
		token, err := wire.ParseToken(name)
		if err != nil {
			continue
		}
		if s, err := journal.Read(w.src.JournalDir, token, journal.Side(side)); err == nil {
			fmt.Fprintf(&b, "%s %q; ", side, s.Entry)
		}
	}
	return b.String()
}
