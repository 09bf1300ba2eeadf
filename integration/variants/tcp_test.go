// SPDX-License-Identifier: Apache-2.0

package variants

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"os/exec"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/pkg/oci"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/io-mig/mig/integration/internal/daemon"
	"github.com/io-mig/mig/integration/internal/image"
)

// loaded is a Redis with its clients in one container.
var loaded = image.Image{Name: "mig.test/loaded:1", Programs: []string{"redis-server", "redis-cli", "redis-benchmark"}}

// TestClientsWithin: 50 clients in the server's own container, whose connections
// never leave its loopback. None of them sees an error or loses a reply: the
// benchmark ends well, and the server has counted each request once.
func TestClientsWithin(t *testing.T) {
	h := startHost(t, daemon.V24, loaded)
	const requests = 200000
	v := variant{image: loaded.Name, args: []string{"sh", "-c", fmt.Sprintf(
		`redis-server --save "" --bind 127.0.0.1 --dir /tmp >/dev/null &
		until redis-cli ping >/dev/null 2>&1; do sleep 0.1; done
		redis-benchmark -c 50 -n %d -t set -r 1000 -q >/dev/null; echo $? >/tmp/status; wait`, requests)}}
	b := h.run(t, "loaded-0", v)
	ask := func(command string) string {
		r := h.Ctr(t.Context(), "tasks", "exec", "--exec-id", fmt.Sprint("ask", time.Now().UnixNano()), b.id, "sh", "-c", command)
		return strings.TrimSpace(r.Stdout)
	}
	calls := func() (n int) {
		_, after, _ := strings.Cut(ask("redis-cli info commandstats"), "cmdstat_set:calls=")
		_, _ = fmt.Sscan(after, &n)
		return n
	}
	moves := 0
	for ; moves < 100; moves++ {
		before := calls()
		for end := time.Now().Add(30 * time.Second); calls() < min(before+5000, requests); time.Sleep(10 * time.Millisecond) {
			if time.Now().After(end) {
				t.Fatalf("after %d moves the clients stand still at %d requests", moves, before)
			}
		}
		if calls() == requests {
			break
		}
		dir := b.checkpointExit()
		b.remove()
		b = h.restore(t, fmt.Sprint("loaded-", moves+1), v, dir)
	}
	if moves < 3 {
		t.Errorf("only %d moves while the clients were at work", moves)
	}
	for end := time.Now().Add(10 * time.Second); ask("cat /tmp/status") == "" && time.Now().Before(end); {
		time.Sleep(10 * time.Millisecond)
	}
	if got := ask("cat /tmp/status"); got != "0" {
		t.Errorf("the benchmark ended with %q", got)
	}
	if got := calls(); got != requests {
		t.Errorf("the server has seen %d requests of %d", got, requests)
	}
	t.Logf("%d moves", moves)
	b.remove()
}

// TestClientsOutsideAreKept: the clients are outside, in the same network
// namespace, and with the policy io.mig/tcp=keep go on after each move.
func TestClientsOutsideAreKept(t *testing.T) {
	h := startHost(t, daemon.V24, image.Redis)
	r := redis{t, freePort(t)}
	v := server(r.port, annotate(map[string]string{"io.mig/tcp": "keep"}))
	b := h.run(t, "redis-0", v)
	r.ready()
	var out bytes.Buffer
	cmd := exec.Command("redis-benchmark", "-h", "127.0.0.1", "-p", fmt.Sprint(r.port), "-t", "set", "-c", "50", "-n", "150000", "-q")
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	moves := 0
	for over := false; !over && moves < 6; {
		select {
		case err := <-ended:
			if err != nil {
				t.Fatalf("after %d moves: redis-benchmark: %v: %s", moves, err, &out)
			}
			over = true
		case <-time.After(100 * time.Millisecond):
			dir := b.checkpointExit()
			b.remove()
			moves++
			b = h.restore(t, fmt.Sprint("redis-", moves), v, dir)
		}
	}
	if moves == 6 {
		select {
		case err := <-ended:
			if err != nil {
				t.Fatalf("redis-benchmark: %v: %s", err, &out)
			}
		case <-time.After(60 * time.Second):
			_ = cmd.Process.Kill()
			t.Fatalf("the clients stand still: %s", &out)
		}
	}
	if moves < 3 {
		t.Errorf("only %d moves while the clients were at work", moves)
	}
	t.Logf("%d moves", moves)
	b.remove()
}

// network is a network namespace that a process holds.
type network struct {
	t      *testing.T
	holder *exec.Cmd
}

func newNetwork(t *testing.T) *network {
	t.Helper()
	n := &network{t, exec.Command("unshare", "--net", "cat")} // which ends with us
	input, err := n.holder.StdinPipe()
	if err == nil {
		err = n.holder.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { input.Close(); _ = n.holder.Wait() })
	var own, its unix.Stat_t
	for end := time.Now().Add(10 * time.Second); time.Now().Before(end); time.Sleep(time.Millisecond) {
		if unix.Stat("/proc/self/ns/net", &own) == nil && unix.Stat(n.path(), &its) == nil && own.Ino != its.Ino {
			n.ip("link", "set", "lo", "up")
			return n
		}
	}
	t.Fatal("no network namespace")
	return nil
}

func (n *network) pid() string  { return fmt.Sprint(n.holder.Process.Pid) }
func (n *network) path() string { return "/proc/" + n.pid() + "/ns/net" }

// ip runs ip(8) in the namespace.
func (n *network) ip(args ...string) {
	n.t.Helper()
	out, err := exec.Command("nsenter", append([]string{"--net=" + n.path(), "ip"}, args...)...).CombinedOutput()
	if err != nil {
		n.t.Fatalf("ip %v: %v: %s", args, err, out)
	}
}

// dial connects from the namespace.
func (n *network) dial(address string) (c net.Conn, err error) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread() // and never unlocked: the thread ends
		var fd int
		if fd, err = unix.Open(n.path(), unix.O_RDONLY|unix.O_CLOEXEC, 0); err != nil {
			return
		}
		defer unix.Close(fd)
		if err = unix.Setns(fd, unix.CLONE_NEWNET); err == nil {
			c, err = net.DialTimeout("tcp", address, 5*time.Second)
		}
	}()
	<-done
	return c, err
}

// pattern is a stream that repeats itself nowhere near.
type pattern struct{ at uint64 }

func (p *pattern) Read(b []byte) (int, error) {
	for i := range b {
		b[i] = byte(p.at*7 + (p.at>>8)*13 + (p.at>>16)*17)
		p.at++
	}
	return len(b), nil
}

// TestStreamIsKept: a client in another network namespace sends 200 MB to a
// server, which sends them back, while the container is moved again and again
// within its network namespace, which outlives it. Every byte comes, and the
// connection is never reset.
func TestStreamIsKept(t *testing.T) {
	h := startHost(t, daemon.V24, image.Busybox)
	server, other := newNetwork(t), newNetwork(t)
	server.ip("link", "add", "eth0", "type", "veth", "peer", "name", "eth0", "netns", other.pid())
	for n, address := range map[*network]string{server: "10.77.0.1/24", other: "10.77.0.2/24"} {
		n.ip("addr", "add", address, "dev", "eth0")
		n.ip("link", "set", "eth0", "up")
	}
	v := variant{
		image: image.Busybox.Name, args: []string{"nc", "-ll", "-p", "5000", "-e", "cat"},
		spec: []oci.SpecOpts{annotate(map[string]string{"io.mig/tcp": "keep"}),
			oci.WithLinuxNamespace(specs.LinuxNamespace{Type: specs.NetworkNamespace, Path: server.path()})},
	}
	b := h.run(t, "stream-0", v)
	var c net.Conn
	for end := time.Now().Add(10 * time.Second); c == nil; time.Sleep(10 * time.Millisecond) {
		var err error
		if c, err = other.dial("10.77.0.1:5000"); err != nil && time.Now().After(end) {
			t.Fatal(err)
		}
	}
	defer c.Close()
	const total = 200 << 20
	sent, received := make(chan error, 1), make(chan error, 1)
	go func() { sent <- send(c, total) }()
	var progress atomic.Int64
	go func() { received <- receive(c, total, &progress) }()
	moves := 0
	for over := false; !over; {
		select {
		case err := <-sent:
			if err != nil {
				t.Fatalf("after %d moves: send: %v", moves, err)
			}
			sent = nil
		case err := <-received:
			if err != nil {
				t.Fatalf("after %d moves: receive: %v", moves, err)
			}
			over = true
		case <-time.After(10 * time.Millisecond):
			// A client that heard nothing while the container was away tries again
			// less and less often.
			if progress.Load() < int64(moves+1)*total/12 {
				continue
			}
			dir := b.checkpointExit()
			b.remove()
			moves++
			b = h.restore(t, fmt.Sprint("stream-", moves), v, dir)
		}
	}
	if moves < 3 {
		t.Errorf("only %d moves while the stream was on its way", moves)
	}
	if got := b.status(); got != client.Running {
		t.Errorf("it is %s", got)
	}
	t.Logf("%d moves", moves)
	b.remove()
}

// send writes the pattern, no faster than 40 MB/s.
func send(c net.Conn, total int) error {
	const part = 256 << 10
	var p pattern
	b := make([]byte, part)
	for n := 0; n < total; n += part {
		_, _ = p.Read(b)
		_ = c.SetWriteDeadline(time.Now().Add(60 * time.Second))
		if _, err := c.Write(b); err != nil {
			return fmt.Errorf("at %d: %w", n, err)
		}
		time.Sleep(part * time.Second / (40 << 20))
	}
	return nil
}

// receive compares what comes with the pattern.
func receive(c net.Conn, total int, progress *atomic.Int64) error {
	var p pattern
	got, want := make([]byte, 64<<10), make([]byte, 64<<10)
	for n := 0; n < total; n += len(got) {
		_ = c.SetReadDeadline(time.Now().Add(60 * time.Second))
		if _, err := io.ReadFull(c, got); err != nil {
			return fmt.Errorf("at %d: %w", n, err)
		}
		_, _ = p.Read(want)
		if !bytes.Equal(got, want) {
			return fmt.Errorf("what came at %d is wrong", n)
		}
		progress.Store(int64(n))
	}
	return nil
}
