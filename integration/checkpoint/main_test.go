// SPDX-License-Identifier: Apache-2.0

// Package checkpoint tests checkpoint and restore as users of ctr and nerdctl
// do it, on a Redis whose whole data are compared.
package checkpoint

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/io-mig/mig/integration/internal/daemon"
	"github.com/io-mig/mig/integration/internal/image"
	"github.com/io-mig/mig/integration/internal/itest"
	"github.com/io-mig/mig/integration/internal/workload"
)

func TestMain(m *testing.M) { itest.Main(m) }

// The data of every Redis here.
const (
	keys    = 200_000
	keySize = 100 // bytes of a value
)

// server is a filled Redis under mig and the proof of its data.
type server struct {
	workload.Redis
	host *itest.Host
	want workload.Proof
}

// startHost starts a containerd with the Redis image.
func startHost(t *testing.T, version daemon.Version) *itest.Host {
	t.Helper()
	return itest.Start(t, daemon.Config{Version: version}, image.Redis)
}

// startRedis runs a Redis and fills it.
func startRedis(t *testing.T, host *itest.Host, id string) server {
	t.Helper()
	removeLater(t, host, id)
	host.Must(t, "run", "--detach", "--null-io", "--runtime", itest.Mig, image.Redis.Name, id)
	return fill(t, host, id)
}

// fill fills a running Redis and takes the proof.
func fill(t *testing.T, host *itest.Host, id string) server {
	t.Helper()
	s := server{Redis: workload.Redis{Daemon: host.Daemon, ID: id}, host: host}
	if err := s.Ready(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := s.Fill(t.Context(), keys, keySize); err != nil {
		t.Fatal(err)
	}
	var err error
	if s.want, err = s.Proof(t.Context()); err != nil {
		t.Fatal(err)
	}
	if s.want.Keys != keys {
		t.Fatalf("%d keys after filling, want %d", s.want.Keys, keys)
	}
	return s
}

func removeLater(t *testing.T, host *itest.Host, id string) {
	t.Cleanup(func() { host.Remove(id) })
}

// proven fails t unless the container holds this server's data, in the same
// Redis process, and still works.
func (s server) proven(t *testing.T, host *itest.Host, id string) {
	t.Helper()
	restored := workload.Redis{Daemon: host.Daemon, ID: id}
	got, err := restored.Proof(t.Context())
	if err != nil {
		t.Fatalf("%s: %v", id, err)
	}
	if diff := cmp.Diff(s.want, got); diff != "" {
		t.Fatalf("%s holds other data (-before +now):\n%s", id, diff)
	}
	for _, command := range [][]string{{"SET", "alive", "yes"}, {"DEL", "alive"}} {
		if _, err := restored.Command(t.Context(), command...); err != nil {
			t.Fatalf("%s: %v", id, err)
		}
	}
}

// status returns what `ctr tasks ls` says of a task, "none" without one.
func status(t *testing.T, host *itest.Host, id string) string {
	t.Helper()
	for line := range strings.Lines(host.Must(t, "tasks", "ls").Stdout) {
		if fields := strings.Fields(line); len(fields) == 3 && fields[0] == id {
			return fields[2]
		}
	}
	return "none"
}

// await waits for a status.
func await(t *testing.T, host *itest.Host, id, want string) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); status(t, host, id) != want; time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%s is %s, want %s", id, status(t, host, id), want)
		}
	}
}

// save makes a checkpoint image of a container and its task.
func save(t *testing.T, host *itest.Host, id, ref string) {
	t.Helper()
	host.Must(t, "containers", "checkpoint", "--rw", "--image", "--task", id, ref)
}

// restore makes a running container of a checkpoint image.
func restore(t *testing.T, host *itest.Host, id, ref string) {
	t.Helper()
	removeLater(t, host, id)
	host.Must(t, "containers", "restore", "--rw", "--live", id, ref)
}
