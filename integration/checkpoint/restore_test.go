// SPDX-License-Identifier: Apache-2.0

package checkpoint

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"hash/crc32"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/io-mig/mig/integration/internal/daemon"
	"github.com/io-mig/mig/integration/internal/image"
	"github.com/io-mig/mig/integration/internal/itest"
)

// migRestore is mig restore, not started.
func migRestore(host *itest.Host, args ...string) *exec.Cmd {
	args = append([]string{"restore", "-n", host.Namespace, "--containerd", host.Address}, args...)
	return exec.Command(host.Tree.Bin("mig"), args...)
}

// restored runs mig restore and holds what it says to what containerd says.
func restored(t *testing.T, host *itest.Host, id, dir string, flags ...string) {
	t.Helper()
	out, err := migRestore(host, append([]string{"--json", id, dir}, flags...)...).Output()
	var failed *exec.ExitError
	if errors.As(err, &failed) {
		t.Fatalf("mig restore: %v: %s", err, failed.Stderr)
	}
	var said struct {
		progressed
		Container string
		Pid       int
	}
	if err := json.Unmarshal(out, &said); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if said.Phase != "succeeded" || said.Container != id || said.Pid != pid(t, host, id) {
		t.Errorf("it says %s, and the pid is %d", out, pid(t, host, id))
	}
	if got := status(t, host, id); got != "RUNNING" {
		t.Errorf("%s is %s", id, got)
	}
}

// pid of a container's first process.
func pid(t *testing.T, host *itest.Host, id string) int {
	t.Helper()
	for line := range strings.Lines(host.Must(t, "tasks", "ls").Stdout) {
		if fields := strings.Fields(line); len(fields) == 3 && fields[0] == id {
			return number(t, fields[1])
		}
	}
	return 0
}

// mig restore has a container go on whose task has ended, or that never had one: again
// and again, from an image that stays as it was.
func TestMigRestore(t *testing.T) {
	itest.EachVersion(t, func(t *testing.T, version daemon.Version) {
		host := startHost(t, version)
		s := startRedis(t, host, "redis")
		first, second := filepath.Join(t.TempDir(), "first"), filepath.Join(t.TempDir(), "second")
		saved(t, host, "redis", first, "--exit")
		restored(t, host, "redis", first) // in the place of the ended task
		s.proven(t, host, "redis")
		saved(t, host, "redis", second, "--exit")
		host.Must(t, "tasks", "delete", "redis")
		restored(t, host, "redis", second)
		s.proven(t, host, "redis")

		removeLater(t, host, "other")
		host.Must(t, "containers", "create", "--runtime", itest.Mig, image.Redis.Name, "other")
		restored(t, host, "other", first) // beside the first
		s.proven(t, host, "other")
		s.proven(t, host, "redis")
		out, err := migRestore(host, "redis", second).CombinedOutput()
		refused(t, out, err, "container redis is running: only one whose task has ended")
		host.Must(t, "tasks", "delete", "--force", "redis")
		out, err = migRestore(host, "redis", second).CombinedOutput()
		if want := "redis <- " + second + ": "; err != nil || !strings.HasPrefix(string(out), want) {
			t.Errorf("it says %s and not %q: %v", out, want, err)
		}
		s.proven(t, host, "redis")
	})
}

func refused(t *testing.T, out []byte, err error, want string) {
	t.Helper()
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.ExitCode() != 1 || !strings.Contains(string(out), want) {
		t.Errorf("%v: %s\nwant exit status 1 and %q", err, out, want)
	}
}

// What cannot be restored is told, and the ended task is still there where the image
// was at fault or the container has none.
func TestMigRestoreRefused(t *testing.T) {
	itest.EachVersion(t, func(t *testing.T, version daemon.Version) {
		host := startHost(t, version)
		host.Load(t, image.Busybox)
		startRedis(t, host, "redis")
		dir := filepath.Join(t.TempDir(), "image")
		saved(t, host, "redis", dir, "--exit")
		removeLater(t, host, "alien")
		host.Must(t, "containers", "create", "--runtime", "io.containerd.runc.v2", image.Redis.Name, "alien")
		for _, test := range []struct{ name, id, dir, want string }{
			{"no container", "nobody", dir, "there is no container nobody in the namespace"},
			{"another runtime", "alien", dir, "its runtime is io.containerd.runc.v2, only containers of io.mig.v1"},
			{"no directory", "redis", dir + "-not", "no such file or directory"},
			{"no image", "redis", t.TempDir(), "no image is there, or an incomplete one"},
			{"another version", "redis", later(t, dir), "image format 99."},
			{"no log", "redis", dir, "want file:///PATH or binary:///PATH"},
		} {
			t.Run(test.name, func(t *testing.T) {
				args := []string{test.id, test.dir}
				if test.name == "no log" {
					args = append(args, "--log-uri", "http://somewhere")
				}
				out, err := migRestore(host, args...).CombinedOutput()
				refused(t, out, err, test.want)
				if got := status(t, host, "redis"); got != "STOPPED" {
					t.Errorf("redis is %s, want STOPPED", got)
				}
			})
		}
		removeLater(t, host, "busybox")
		host.Must(t, "containers", "create", "--runtime", itest.Mig, image.Busybox.Name, "busybox")
		out, err := migRestore(host, "busybox", dir).CombinedOutput()
		refused(t, out, err, `open "/usr/bin/redis-server", which the image has mapped: no such file or directory (is the root file system`)
		if got := status(t, host, "busybox"); got != "none" {
			t.Errorf("the container of another image is %s", got)
		}
	})
}

// later copies an image and makes it one of a later major version (docs/image-format.md).
func later(t *testing.T, dir string) string {
	t.Helper()
	to := filepath.Join(t.TempDir(), "image")
	if err := os.CopyFS(to, os.DirFS(dir)); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(to, "mig.manifest")
	b, err := os.ReadFile(path)
	if err == nil {
		binary.LittleEndian.PutUint16(b[4:], 99)
		binary.LittleEndian.PutUint32(b[12:], crc32.Checksum(b[:12], crc32.MakeTable(crc32.Castagnoli)))
		err = os.WriteFile(path, b, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	return to
}

// count is a shell that counts aloud.
const count = "n=0; while :; do n=$((n+1)); echo $n; usleep 10000; done"

// The log of a container goes on where it was, or where --log-uri says. The counter of
// a shell shows that it is the same one: no number is missing, and none comes twice.
func TestMigRestoreLog(t *testing.T) {
	itest.EachVersion(t, func(t *testing.T, version daemon.Version) {
		host := itest.Start(t, daemon.Config{Version: version}, image.Busybox)
		removeLater(t, host, "shell")
		tmp := t.TempDir()
		dir, first, second := filepath.Join(tmp, "image"), filepath.Join(tmp, "first"), filepath.Join(tmp, "second")
		host.Must(t, "run", "--detach", "--log-uri", "file://"+first, "--runtime", itest.Mig, image.Busybox.Name, "shell", "sh", "-c", count)
		counted(t, first, "")
		if out, err := migCheckpoint(host, "--exit", "shell", dir); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		before := read(t, first)
		restored(t, host, "shell", dir)
		counted(t, first, before)
		host.Must(t, "tasks", "delete", "--force", "shell")
		restored(t, host, "shell", dir, "--log-uri", "file://"+second)
		counted(t, second, "")
		if line, want := strings.Fields(read(t, second))[0], strconv.Itoa(strings.Count(before, "\n")+1); line != want {
			t.Errorf("the second log begins with %s, want %s", line, want)
		}
	})
}

// A shell on a terminal, whose client is gone, goes on on one that leads to a log.
func TestMigRestoreTerminal(t *testing.T) {
	itest.EachVersion(t, func(t *testing.T, version daemon.Version) {
		host := itest.Start(t, daemon.Config{Version: version}, image.Busybox)
		removeLater(t, host, "shell")
		ctr := onScreen(t, host, 24, 80, "run", "--tty", "--runtime", itest.Mig, image.Busybox.Name, "shell", "sh", "-c", count)
		ctr.expect("\n10\r")
		dir, log := filepath.Join(t.TempDir(), "image"), filepath.Join(t.TempDir(), "log")
		if out, err := migCheckpoint(host, "--exit", "shell", dir); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		<-ctr.done
		restored(t, host, "shell", dir, "--log-uri", "file://"+log)
		counted(t, log, "")
		if line := number(t, strings.Fields(read(t, log))[0]); line <= 10 {
			t.Errorf("behind 10 it goes on with %d", line)
		}
		if got := shell(t, host, "shell", "readlink /proc/1/fd/1"); !strings.HasPrefix(got, "/dev/") {
			t.Errorf("its output is %q, want a terminal", got)
		}
	})
}

func read(t *testing.T, file string) string {
	t.Helper()
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// counted waits until a log has gone on from what it was and holds it to a count.
func counted(t *testing.T, log, before string) {
	t.Helper()
	var text string
	for end := time.Now().Add(10 * time.Second); strings.Count(text, "\n") < 5; time.Sleep(10 * time.Millisecond) {
		b, _ := os.ReadFile(log) // not there at first
		if text = string(b); len(text) < len(before) || text[:len(before)] != before {
			text = ""
		} else if text = text[len(before):]; time.Now().After(end) {
			t.Fatalf("%s does not go on: %q behind %q", log, text, before)
		}
	}
	lines := strings.Fields(before + text)
	for n := 1; n < len(lines)-1; n++ { // the last may be half there
		if number(t, lines[n]) != number(t, lines[n-1])+1 {
			t.Fatalf("%s: %s behind %s", log, lines[n], lines[n-1])
		}
	}
}

// mig restore that is interrupted has restored the container or leaves it without a
// task; one that is killed leaves what ctr can remove. Then it is restored.
func TestMigRestoreInterrupted(t *testing.T) {
	itest.EachVersion(t, func(t *testing.T, version daemon.Version) {
		host := startHost(t, version)
		s := startRedis(t, host, "redis")
		dir := filepath.Join(t.TempDir(), "image")
		saved(t, host, "redis", dir, "--exit")
		for n := range 20 {
			sig := []os.Signal{syscall.SIGINT, syscall.SIGKILL}[n%2]
			var out bytes.Buffer
			c := migRestore(host, "redis", dir)
			c.Stdout, c.Stderr = &out, &out
			if err := c.Start(); err != nil {
				t.Fatal(err)
			}
			// At moments that are spread over a restore, and behind it.
			time.Sleep(time.Duration(n/2) * 60 * time.Millisecond)
			_ = c.Process.Signal(sig) // it may have ended
			err := c.Wait()
			got := status(t, host, "redis")
			t.Logf("%s after %d ms: %v, %s%s", sig, n/2*60, err, &out, got)
			if sig == syscall.SIGINT && err == nil && got != "RUNNING" || sig == syscall.SIGINT && c.ProcessState.ExitCode() == 1 && got != "none" {
				t.Errorf("after %v it is %s", err, got)
			}
			if got != "none" {
				host.Must(t, "tasks", "delete", "--force", "redis")
			}
		}
		restored(t, host, "redis", dir)
		s.proven(t, host, "redis")
	})
}
