// SPDX-License-Identifier: Apache-2.0

package live

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/io-mig/mig/integration/internal/daemon"
	"github.com/io-mig/mig/integration/internal/image"
	"github.com/io-mig/mig/integration/internal/pattern"
	"github.com/io-mig/mig/integration/internal/repo"
)

// goalSilence is how long clients may hear nothing, in times of how long mig says
// that it stopped the container.
const goalSilence = 3

// trafficMoves is how often each server is moved under load.
func trafficMoves(t *testing.T) int { return number(t, "MIG_TRAFFIC_MOVES", 5) }

func number(t *testing.T, name string, otherwise int) int {
	t.Helper()
	text := os.Getenv(name)
	if text == "" {
		return otherwise
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < 1 {
		t.Fatalf("%s=%q: want a number", name, text)
	}
	return n
}

// moves moves a container there and back while clients are at work. begin and end
// surround each move; end returns the longest silence that a client saw, and when
// the clients stopped. A move at whose end they had stopped does not count.
func (w *world) moves(id string, n int, begin func(), end func() (silence time.Duration, until time.Time)) {
	w.t.Helper()
	var ratios, silences, stops []float64
	from, to := w.alpha, w.beta
	for tries := 0; len(ratios) < n; tries++ {
		if tries == 2*n+5 {
			w.t.Fatalf("in %d moves the clients had stopped before the end", tries-len(ratios))
		}
		begin()
		r := w.mustMove(from, id, to.IP, "--tcp", "keep")
		seen, until := end()
		if from, to = to, from; until.Before(r.switched()) {
			continue
		}
		silence := float64(seen.Microseconds()) / 1000
		ratios, silences, stops = append(ratios, silence/r.DowntimeMS), append(silences, silence), append(stops, r.DowntimeMS)
	}
	w.t.Logf("%d moves: longest silence of a client %.1f ms (median; worst %.1f), stopped for %.1f ms (median): %.2f times as long (median; worst %.2f)",
		n, median(silences), slices.Max(silences), median(stops), median(ratios), slices.Max(ratios))
	if m := median(ratios); m > goalSilence {
		w.t.Errorf("clients hear nothing for %.1f times as long as the container is stopped, goal: %d", m, goalSilence)
	}
}

func median(list []float64) float64 {
	if len(list) == 0 {
		return math.NaN()
	}
	s := slices.Sorted(slices.Values(list))
	return s[len(s)/2]
}

// bench is a program of a client's that works for a number of seconds, once for each
// move, and longer each time that it ends too early.
type bench struct {
	w       *world
	command string // with %d for the seconds
	seconds int
	out     bytes.Buffer
	cmd     *exec.Cmd
	exit    chan error
	ended   time.Time
}

func (w *world) bench(command string) *bench { return &bench{w: w, command: command, seconds: 2} }

func (b *bench) begin() {
	b.out.Reset()
	b.cmd = b.w.client.Command(context.Background(), "sh", "-c", "exec "+fmt.Sprintf(b.command, b.seconds))
	b.cmd.Stdout, b.cmd.Stderr = &b.out, &b.out
	if err := b.cmd.Start(); err != nil {
		b.w.t.Fatal(err)
	}
	b.exit = make(chan error, 1)
	go func() {
		err := b.cmd.Wait()
		b.ended = time.Now()
		b.exit <- err
	}()
}

// end returns what the program printed.
func (b *bench) end() string {
	b.w.t.Helper()
	select {
	case err := <-b.exit: // before the end of the move
		b.seconds *= 2
		b.exit <- err
	default:
	}
	if err := <-b.exit; err != nil {
		b.w.t.Fatalf("%s: %v: %s", b.command, err, &b.out)
	}
	return b.out.String()
}

// mustFind returns the number that a pattern finds in what a program printed.
func (w *world) mustFind(out, expression string) float64 {
	w.t.Helper()
	m := regexp.MustCompile(expression).FindStringSubmatch(out)
	if m == nil {
		w.t.Fatalf("no %q in %s", expression, out)
	}
	if d, err := time.ParseDuration(strings.TrimSpace(m[1])); err == nil {
		return float64(d.Microseconds()) / 1000
	}
	n, err := strconv.ParseFloat(m[1], 64)
	if err != nil {
		w.t.Fatalf("%q in %s", m[1], out)
	}
	return n
}

func milliseconds(ms float64) time.Duration { return time.Duration(ms * float64(time.Millisecond)) }

// newPod makes the hosts with a container in its own network.
func newPod(t *testing.T, i image.Image, port int, command ...string) *world {
	t.Helper()
	w := newWorld(t, daemon.V24, i)
	w.runPod(i, "server", command...)
	w.listens(fmt.Sprintf("%s:%d", podIP4, port))
	return w
}

// TestTrafficRedis: 50 connections of redis-benchmark, and some that measure.
func TestTrafficRedis(t *testing.T) {
	w := newPod(t, image.Redis, 6379, podRedis...)
	stop := w.redisBenchmark()
	l := w.ask(5, time.Millisecond, func(ctx context.Context) (net.Conn, error) { return w.dial(ctx, podIP4+":6379") }, echoes)
	w.moves("server", trafficMoves(t), l.reset, func() (time.Duration, time.Time) { return w.silence(l), time.Now() })
	l.end()
	stop()
}

// redisBenchmark has 50 connections of redis-benchmark at work until stop, which
// fails the test if one of them has failed.
func (w *world) redisBenchmark() (stop func()) {
	w.t.Helper()
	var out bytes.Buffer
	cmd := w.client.Command(context.Background(), "redis-benchmark", "-h", podIP4, "-c", "50", "-n", "2000000000", "-t", "set", "-r", "1000", "-q")
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		w.t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	w.t.Cleanup(func() { _ = cmd.Process.Kill() })
	return func() {
		w.t.Helper()
		select {
		case err := <-ended:
			w.t.Fatalf("redis-benchmark has ended: %v: %s", err, &out)
		default:
		}
		_ = cmd.Process.Kill()
		<-ended
		if text := out.String(); strings.Contains(text, "rror") || strings.Contains(text, "closed") {
			w.t.Errorf("redis-benchmark: %s", text)
		}
	}
}

// nginx serves one short page, over connections that are kept.
var nginx = image.Image{
	Name: "mig.test/nginx:1", Command: []string{"nginx", "-c", "/etc/nginx.conf", "-g", "daemon off;"}, Programs: []string{"nginx"},
	Files: map[string]string{
		"/etc/nginx.conf": `worker_processes 2;
error_log /dev/null;
pid /tmp/nginx.pid;
user nobody nogroup;
events { worker_connections 256; }
http { access_log off; keepalive_requests 100000000; client_body_temp_path /tmp/a; proxy_temp_path /tmp/b; fastcgi_temp_path /tmp/c; uwsgi_temp_path /tmp/d; scgi_temp_path /tmp/e;
server { listen 80; root /page; } }
`,
		"/page/index.html": "hello\n", "/var/log/nginx/error.log": "", "/var/lib/nginx/keep": "",
	},
}

// TestTrafficNginx: wrk with 20 connections that are kept.
func TestTrafficNginx(t *testing.T) {
	w := newPod(t, nginx, 80)
	b := w.bench("wrk -t 2 -c 20 -d %ds --timeout 10s http://" + podIP4 + "/index.html")
	w.moves("server", trafficMoves(t), b.begin, func() (time.Duration, time.Time) {
		out := b.end()
		if strings.Contains(out, "Socket errors") || strings.Contains(out, "Non-2xx") {
			t.Fatalf("wrk: %s", out)
		}
		return milliseconds(w.mustFind(out, `Latency\s+\S+\s+\S+\s+(\S+)`)), b.ended
	})
}

// postgres keeps its data in memory.
var postgres = image.Image{
	Name: "mig.test/postgres:1", Programs: []string{"/usr/lib/postgresql/15/bin/postgres", "/usr/lib/postgresql/15/bin/initdb"},
	Trees: []string{"/usr/lib/postgresql/15/lib", "/usr/share/postgresql/15", "/usr/share/zoneinfo/Etc"},
	Command: []string{"sh", "-c", `mkdir -m 700 /tmp/data && chown 1000:1000 /tmp/data && export LC_ALL=C PATH=$PATH:/usr/lib/postgresql/15/bin && cd /tmp &&
		su -s /bin/sh user -c "initdb -D /tmp/data -A trust -U user --no-sync" >/tmp/log 2>&1 &&
		echo "host all all 0.0.0.0/0 trust" >>/tmp/data/pg_hba.conf &&
		exec su -s /bin/sh user -c "exec postgres -D /tmp/data -c listen_addresses=0.0.0.0 -c unix_socket_directories= -c fsync=off"`},
}

// TestTrafficPostgreSQL: pgbench, whose transactions are logged one by one.
func TestTrafficPostgreSQL(t *testing.T) {
	w := newPod(t, postgres, 5432)
	client := func(script string) string {
		cmd := w.client.Command(t.Context(), "sh", "-c", script)
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("%s: %v: %s", script, err, out)
		}
		return string(out)
	}
	to := " -h " + podIP4 + " -U user postgres"
	waitFor(t, 20*time.Second, "PostgreSQL answers", func() bool {
		return w.client.Command(t.Context(), "sh", "-c", "psql -c 'select 1'"+to).Run() == nil
	})
	client("pgbench -i -s 1 -q" + to)
	dir := t.TempDir()
	b := w.bench("sh -c 'cd " + dir + " && exec pgbench -n -c 8 -j 2 -T %d --max-tries=1 -l" + to + "'")
	w.moves("server", trafficMoves(t), b.begin, func() (time.Duration, time.Time) {
		out := b.end()
		if n := w.mustFind(out, `number of failed transactions: (\d+)`); n != 0 {
			t.Fatalf("pgbench: %s", out)
		}
		longest := time.Duration(0)
		logs, _ := filepath.Glob(filepath.Join(dir, "pgbench_log.*"))
		for _, name := range logs {
			longest = max(longest, longestTransaction(t, name))
			_ = os.Remove(name)
		}
		return longest, b.ended
	})
	if out := client("psql -tA -c 'select (select sum(abalance) from pgbench_accounts) = (select sum(delta) from pgbench_history)'" + to); strings.TrimSpace(out) != "t" {
		t.Errorf("the balance is wrong: %s", out)
	}
}

// longestTransaction reads a log of pgbench's: client, number, microseconds, ...
func longestTransaction(t *testing.T, name string) (longest time.Duration) {
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(b)) {
		f := strings.Fields(line)
		if len(f) < 3 {
			t.Fatalf("%s: %q", name, line)
		}
		us, err := strconv.Atoi(f[2])
		if err != nil {
			t.Fatalf("%s: %q", name, line)
		}
		longest = max(longest, time.Duration(us)*time.Microsecond)
	}
	return longest
}

// talk is the image of cmd/talk.
func talk(t *testing.T) image.Image {
	t.Helper()
	tree, err := repo.Find()
	if err != nil {
		t.Fatal(err)
	}
	return image.Image{Name: "mig.test/talk:1", Command: []string{"/talk", ":8080"}, Extra: map[string]string{"/talk": tree.Tool("talk")}}
}

// TestTrafficDownload: one large answer comes while the server moves again and
// again, every byte of it, and at no time nothing for long.
func TestTrafficDownload(t *testing.T) {
	w := newPod(t, talk(t), 8080)
	size := int64(number(t, "MIG_TRAFFIC_MEGABYTES", 500)) << 20
	c := http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, address string) (net.Conn, error) { return w.dial(ctx, address) }}}
	r, err := c.Get(fmt.Sprintf("http://%s:8080/stream/%d", podIP4, size))
	if err != nil {
		t.Fatal(err)
	}
	defer r.Body.Close()
	f := &flow{last: time.Now(), rate: number(t, "MIG_TRAFFIC_RATE", 25) << 20}
	done := make(chan error, 1)
	go func() {
		n, err := io.CopyBuffer(io.MultiWriter(&pattern.Checker{}, f), r.Body, make([]byte, 64<<10))
		if err == nil && n != size {
			err = fmt.Errorf("%d bytes of %d", n, size)
		}
		done <- err
	}()
	moves := trafficMoves(t)
	w.moves("server", moves, f.begin, func() (time.Duration, time.Time) { f.after(1 << 20); return f.end(), time.Now() })
	if f.all() == size {
		t.Errorf("all had come before the last move")
	}
	f.hurry()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
}

// TestTrafficWebSocket: messages that come back one by one.
func TestTrafficWebSocket(t *testing.T) {
	w := newPod(t, talk(t), 8080)
	l := w.ask(10, time.Millisecond, func(ctx context.Context) (net.Conn, error) { return w.upgrade(ctx, podIP4+":8080") }, messages)
	w.moves("server", trafficMoves(t), l.reset, func() (time.Duration, time.Time) { return w.silence(l), time.Now() })
}

// silence is what clients have seen since reset.
func (w *world) silence(l *load) time.Duration {
	w.answered(l, 200)
	longest, _, err := l.seen()
	if err != nil {
		w.t.Fatalf("a client: %v", err)
	}
	return longest
}

// upgrade opens a WebSocket.
func (w *world) upgrade(ctx context.Context, address string) (net.Conn, error) {
	c, err := w.dial(ctx, address)
	if err != nil {
		return nil, err
	}
	if _, err := io.WriteString(c, "GET /echo HTTP/1.1\r\nHost: pod\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"); err != nil {
		return nil, err
	}
	var head []byte
	for b := make([]byte, 1); !bytes.HasSuffix(head, []byte("\r\n\r\n")); {
		if _, err := io.ReadFull(c, b); err != nil {
			return nil, err
		}
		head = append(head, b...)
	}
	if !bytes.Contains(head, []byte(" 101 ")) || !bytes.Contains(head, []byte("s3pPLMBiTxaQ9kYGzzhZRbK+xOo=")) { // RFC 6455, section 1.3
		return nil, fmt.Errorf("no WebSocket: %s", head)
	}
	return c, nil
}

// messages sends one message over a WebSocket and expects it back.
func messages(c net.Conn, r *bufio.Reader, client, n int) error {
	want := fmt.Sprintf("%d-%d", client, n)
	if _, err := c.Write(append([]byte{0x82, 0x80 | byte(len(want)), 0, 0, 0, 0}, want...)); err != nil { // masked by nothing
		return err
	}
	got := make([]byte, 2+len(want))
	if _, err := io.ReadFull(r, got); err != nil {
		return err
	}
	if string(got[2:]) != want || got[0] != 0x82 {
		return fmt.Errorf("%q came back, want %q", got, want)
	}
	return nil
}

// TestTrafficSSH: a session whose command answers line by line.
func TestTrafficSSH(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"host", "user"} {
		if out, err := exec.Command("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", filepath.Join(dir, name)).CombinedOutput(); err != nil {
			t.Fatalf("ssh-keygen: %v: %s", err, out)
		}
	}
	read := func(name string) string {
		b, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	sshd := image.Image{
		Name: "mig.test/sshd:1", Programs: []string{"/usr/sbin/sshd"},
		Files: map[string]string{"/keys/host": read("host"), "/keys/user": read("user.pub"), "/run/sshd/keep": "", "/var/empty/keep": ""},
		Command: []string{"sh", "-c", `mkdir -p /run/sshd /tmp/keys && cp /keys/* /tmp/keys/ && chmod 600 /tmp/keys/* && grep -q ^sshd: /etc/passwd || echo sshd:x:100:65534::/run/sshd:/bin/false >>/etc/passwd
			exec /usr/sbin/sshd -D -e -f /dev/null -h /tmp/keys/host -o AuthorizedKeysFile=/tmp/keys/user -o StrictModes=no -o UsePAM=no -o PermitRootLogin=yes`},
	}
	w := newPod(t, sshd, 22)
	cmd := w.client.Command(t.Context(), "ssh", "-i", filepath.Join(dir, "user"), "-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null", "-o", "BatchMode=yes", "root@"+podIP4, "cat")
	in, err1 := cmd.StdinPipe()
	out, err2 := cmd.StdoutPipe()
	var errs bytes.Buffer
	cmd.Stderr = &errs
	if err := errors.Join(err1, err2, cmd.Start()); err != nil {
		t.Fatal(err)
	}
	r := bufio.NewReader(out)
	l := w.ask(1, time.Millisecond, func(context.Context) (net.Conn, error) { return nobody{}, nil }, func(_ net.Conn, _ *bufio.Reader, _, n int) error {
		want := fmt.Sprintln("line", n)
		if _, err := io.WriteString(in, want); err != nil {
			return fmt.Errorf("%w: %s", err, &errs)
		}
		got, err := r.ReadString('\n')
		if err == nil && got != want {
			err = fmt.Errorf("%q came back, want %q", got, want)
		}
		return err
	})
	w.answered(l, 10)
	w.moves("server", trafficMoves(t), l.reset, func() (time.Duration, time.Time) { return w.silence(l), time.Now() })
	l.end()
	if err := errors.Join(in.Close(), cmd.Wait()); err != nil {
		t.Errorf("ssh: %v: %s", err, &errs)
	}
}

// nobody is the connection of a client that has none of its own.
type nobody struct{ net.Conn }

func (nobody) Close() error                { return nil }
func (nobody) SetDeadline(time.Time) error { return nil }
func (nobody) Read([]byte) (int, error)    { return 0, io.EOF }
