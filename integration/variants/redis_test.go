// SPDX-License-Identifier: Apache-2.0

package variants

import (
	"bufio"
	"fmt"
	"net"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/pkg/oci"
	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/io-mig/mig/integration/internal/daemon"
	"github.com/io-mig/mig/integration/internal/image"
)

// redis is a client of one server over TCP.
type redis struct {
	t    *testing.T
	port int
}

// do sends one command on a connection of its own and returns the answer.
func (r redis) do(words ...string) (string, error) {
	c, err := net.DialTimeout("tcp", fmt.Sprint("127.0.0.1:", r.port), time.Second)
	if err != nil {
		return "", err
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(10 * time.Second))
	if _, err := fmt.Fprintf(c, "%s\r\n", strings.Join(words, " ")); err != nil {
		return "", err
	}
	answer, err := bufio.NewReader(c).ReadString('\n')
	return strings.TrimSpace(answer), err
}

func (r redis) must(words ...string) string {
	r.t.Helper()
	answer, err := r.do(words...)
	if err != nil || strings.HasPrefix(answer, "-") {
		r.t.Fatalf("redis %v: %q, %v", words, answer, err)
	}
	return answer
}

func (r redis) ready() {
	r.t.Helper()
	var err error
	for end := time.Now().Add(15 * time.Second); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		var answer string
		if answer, err = r.do("PING"); err == nil && answer == "+PONG" {
			return
		}
	}
	r.t.Fatal("redis is not ready: ", err)
}

// freePort is one that nobody listens on now.
func freePort(t *testing.T) int {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port
}

// server is a Redis in the host's network namespace, so that its clients
// outlive it.
func server(port int, opts ...oci.SpecOpts) variant {
	return variant{
		image: image.Redis.Name,
		args:  []string{"redis-server", "--port", fmt.Sprint(port), "--bind", "127.0.0.1", "--save", "", "--enable-debug-command", "yes", "--dir", "/tmp"},
		spec:  append([]oci.SpecOpts{oci.WithHostNamespace(specs.NetworkNamespace)}, opts...),
	}
}

// TestRedisUser: a server that has dropped to a user, restored as that user.
func TestRedisUser(t *testing.T) {
	h := startHost(t, daemon.V24, image.Redis)
	r := redis{t, freePort(t)}
	v := server(r.port, oci.WithUser("1000:1000"), limit("RLIMIT_NOFILE", 200, 200))
	b := h.run(t, "redis", v)
	r.ready()
	r.must("DEBUG", "POPULATE", "20000", "key", "50")
	digest := r.must("DEBUG", "DIGEST")
	before := b.idle()
	dir := b.checkpointExit()
	b.remove()
	for _, id := range []string{"redis-second", "redis-third"} {
		c := h.restore(t, id, v, dir)
		r.ready()
		if got := r.must("DEBUG", "DIGEST"); got != digest {
			t.Errorf("%s: digest %s, want %s", id, got, digest)
		}
		before.copied(t, "in "+id, c.idle())
		dir = c.checkpointExit()
		c.remove()
	}
}

// idle waits until the server has noticed that its clients are gone: it keeps
// six descriptors for itself.
func (b *box) idle() facts {
	b.t.Helper()
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		f := b.facts()
		if _, busy := f["fd 7"]; !busy {
			return f
		}
		if time.Now().After(end) {
			b.t.Fatalf("%s still has a client", b.id)
		}
	}
}

// TestConnectionsRefused: a connection is somebody else's business too.
func TestConnectionsRefused(t *testing.T) {
	h := startHost(t, daemon.V24, image.Redis)
	r := redis{t, freePort(t)}
	b := h.run(t, "redis", server(r.port))
	r.ready()
	c, err := net.Dial("tcp", fmt.Sprint("127.0.0.1:", r.port))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := fmt.Fprint(c, "PING\r\n"); err != nil {
		t.Fatal(err)
	}
	if _, err := bufio.NewReader(c).ReadString('\n'); err != nil {
		t.Fatal(err)
	}
	err = b.tryCheckpoint(t.TempDir()+"/image", true)
	if err == nil || !strings.Contains(err.Error(), "TCP connection") || !strings.Contains(err.Error(), "tcp=close") {
		t.Errorf("not refused with its remedy: %v", err)
	}
	// The connection is unharmed.
	if _, err := fmt.Fprint(c, "PING\r\n"); err != nil {
		t.Error(err)
	}
	if answer, err := bufio.NewReader(c).ReadString('\n'); err != nil || answer != "+PONG\r\n" {
		t.Errorf("the connection says %q, %v", answer, err)
	}
	c.Close()
	b.remove()
}

// TestRedisUnderLoad: clients of a benchmark write and read all the time, and
// with the policy io.mig/tcp=close others connect after each of 20 moves. What
// they write is the same value for each of so many keys, so that the digest of
// all data is known however far each of them came.
func TestRedisUnderLoad(t *testing.T) {
	h := startHost(t, daemon.V24, image.Redis)
	r := redis{t, freePort(t)}
	v := server(r.port, annotate(map[string]string{"io.mig/tcp": "close"}))
	b := h.run(t, "redis-0", v)
	r.ready()
	r.must("DEBUG", "POPULATE", "20000", "still", "100")
	for range 4 { // until each key was written
		if out, err := benchmark(r.port, 20000).CombinedOutput(); err != nil {
			t.Fatalf("redis-benchmark: %v: %s", err, out)
		}
	}
	digest := r.must("DEBUG", "DIGEST")
	load := &load{port: r.port}
	defer load.end()
	for round := range 20 {
		load.begin(t)
		load.await(t)
		dir := b.checkpointExit()
		b.remove()
		b = h.restore(t, fmt.Sprint("redis-", round+1), v, dir)
		r.ready()
		if got := r.must("DEBUG", "DIGEST"); got != digest {
			t.Fatalf("round %d: digest %s, want %s", round, got, digest)
		}
	}
	load.begin(t)
	load.await(t)
	load.end()
	if got := r.must("DEBUG", "DIGEST"); got != digest {
		t.Errorf("at rest: digest %s, want %s", got, digest)
	}
	if got := b.status(); got != client.Running {
		t.Errorf("it is %s", got)
	}
	b.remove()
}

// benchmark writes and reads 500 keys of one value.
func benchmark(port, requests int) *exec.Cmd {
	return exec.Command("redis-benchmark", "-h", "127.0.0.1", "-p", fmt.Sprint(port), "-t", "set,get", "-r", "500", "-d", "32", "-c", "20", "-n", fmt.Sprint(requests), "-q")
}

// load is a benchmark that is started anew for each server. A benchmark whose
// connections end gives up, or waits for ever without any.
type load struct {
	port int
	cmd  *exec.Cmd
}

// begin ends the benchmark that runs and starts another.
func (l *load) begin(t *testing.T) {
	t.Helper()
	l.end()
	l.cmd = benchmark(l.port, 100_000_000)
	if err := l.cmd.Start(); err != nil {
		t.Fatal(err)
	}
}

func (l *load) end() {
	if l.cmd != nil {
		_ = l.cmd.Process.Kill()
		_ = l.cmd.Wait()
		l.cmd = nil
	}
}

// await waits until the benchmark's clients are connected and at work.
func (l *load) await(t *testing.T) {
	t.Helper()
	r := redis{t, l.port}
	served := func() (clients, commands int) {
		answer, err := infoOf(r)
		if err != nil {
			t.Fatal(err)
		}
		return answer["connected_clients"], answer["total_commands_processed"]
	}
	_, before := served()
	for end := time.Now().Add(20 * time.Second); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		if clients, commands := served(); clients > 15 && commands > before+2000 {
			return
		}
	}
	clients, commands := served()
	t.Fatalf("the load does not come back: %d commands before, now %d by %d clients", before, commands, clients)
}

// infoOf reads the numbers of INFO.
func infoOf(r redis) (map[string]int, error) {
	c, err := net.Dial("tcp", fmt.Sprint("127.0.0.1:", r.port))
	if err != nil {
		return nil, err
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(10 * time.Second))
	if _, err := fmt.Fprint(c, "INFO\r\nQUIT\r\n"); err != nil {
		return nil, err
	}
	out := map[string]int{}
	for s := bufio.NewScanner(c); s.Scan(); {
		key, value, _ := strings.Cut(strings.TrimSpace(s.Text()), ":")
		var n int
		if _, err := fmt.Sscan(value, &n); err == nil {
			out[key] = n
		}
	}
	return out, nil
}
