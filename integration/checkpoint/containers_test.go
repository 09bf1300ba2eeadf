// SPDX-License-Identifier: Apache-2.0

package checkpoint

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"github.com/io-mig/mig/integration/internal/daemon"
	"github.com/io-mig/mig/integration/internal/image"
	"github.com/io-mig/mig/integration/internal/itest"
)

const ref = "mig.test/saved:1"

// The main job: save, remove, restore under the same id.
func TestCheckpointRestore(t *testing.T) {
	itest.EachVersion(t, func(t *testing.T, version daemon.Version) {
		host := startHost(t, version)
		s := startRedis(t, host, "redis")
		save(t, host, "redis", ref)
		s.proven(t, host, "redis") // containers checkpoint leaves it running
		host.Remove("redis")
		restore(t, host, "redis", ref)
		await(t, host, "redis", "RUNNING")
		s.proven(t, host, "redis")
	})
}

// Under another id, while the original runs on: each has its own memory.
func TestCheckpointRestoreBesideOriginal(t *testing.T) {
	itest.EachVersion(t, func(t *testing.T, version daemon.Version) {
		host := startHost(t, version)
		s := startRedis(t, host, "redis")
		save(t, host, "redis", ref)
		restore(t, host, "copy", ref)
		s.proven(t, host, "copy")
		if _, err := s.Command(t.Context(), "SET", "only", "original"); err != nil {
			t.Fatal(err)
		}
		s.proven(t, host, "copy")
	})
}

// A restored container can be saved and restored again.
func TestCheckpointTwiceInARow(t *testing.T) {
	itest.EachVersion(t, func(t *testing.T, version daemon.Version) {
		host := startHost(t, version)
		s := startRedis(t, host, "first")
		save(t, host, "first", ref)
		host.Remove("first")
		restore(t, host, "second", ref)
		s.proven(t, host, "second")
		if version == daemon.V16 {
			// containerd before 2.0 loses a checkpoint's blobs where one of them
			// (here the spec) is in its store already, and says nothing
			// (containerd issue 7980). With the first image gone there is none.
			host.Must(t, "images", "delete", "--sync", ref)
		}
		save(t, host, "second", "mig.test/saved:2")
		host.Remove("second")
		restore(t, host, "third", "mig.test/saved:2")
		s.proven(t, host, "third")
	})
}

// What a restored container must still be able to do.
func TestCheckpointRestoredIsWhole(t *testing.T) {
	itest.EachVersion(t, func(t *testing.T, version daemon.Version) {
		host := startHost(t, version)
		s := startRedis(t, host, "redis")
		save(t, host, "redis", ref)
		host.Remove("redis")
		restore(t, host, "redis", ref)

		link := host.Must(t, "tasks", "exec", "--exec-id", "link", "redis", "ip", "link", "show", "lo").Stdout
		if !strings.Contains(link, "LOOPBACK,UP") {
			t.Errorf("the loopback is not up: %s", link)
		}
		over := host.Must(t, "tasks", "exec", "--exec-id", "tcp", "redis", "redis-cli", "-h", "127.0.0.1", "DBSIZE").Stdout
		if strings.TrimSpace(over) != "200000" {
			t.Errorf("over TCP, DBSIZE is %q", over)
		}
		host.Must(t, "tasks", "pause", "redis")
		await(t, host, "redis", "PAUSED")
		host.Must(t, "tasks", "resume", "redis")
		host.Must(t, "tasks", "metrics", "redis")
		host.Must(t, "tasks", "ps", "redis")
		s.proven(t, host, "redis")
	})
}

// The exit status of a restored process arrives: 0 of a Redis that obeys
// SIGTERM, 137 of one that is killed.
func TestCheckpointExitStatusArrives(t *testing.T) {
	for _, test := range []struct {
		signal string
		code   int
	}{{"TERM", 0}, {"KILL", 137}} {
		t.Run(test.signal, func(t *testing.T) {
			itest.EachVersion(t, func(t *testing.T, version daemon.Version) {
				host := startHost(t, version)
				startRedis(t, host, "redis")
				save(t, host, "redis", ref)
				host.Remove("redis")
				restore(t, host, "redis", ref)
				host.Must(t, "tasks", "kill", "--signal", test.signal, "redis")
				await(t, host, "redis", "STOPPED")
				// ctr itself succeeds and tells the status of the task.
				got := host.Must(t, "tasks", "delete", "redis").Stderr
				if told := strings.Contains(got, fmt.Sprintf("exit code %d", test.code)); told != (test.code != 0) {
					t.Errorf("ctr tasks delete does not tell exit status %d: %s", test.code, got)
				}
			})
		})
	}
}

// To a second containerd with its own root, through an archive; also from one
// version to the other.
func TestCheckpointToAnotherContainerd(t *testing.T) {
	for _, way := range [][2]daemon.Version{
		{daemon.V16, daemon.V16}, {daemon.V24, daemon.V24}, {daemon.V16, daemon.V24}, {daemon.V24, daemon.V16},
	} {
		t.Run(string(way[0])+"-to-"+string(way[1]), func(t *testing.T) {
			source := startHost(t, way[0])
			s := startRedis(t, source, "redis")
			save(t, source, "redis", ref)
			archive := filepath.Join(t.TempDir(), "saved.tar")
			source.Must(t, "images", "export", "--skip-manifest-json", archive, ref)
			source.Remove("redis")

			// The base image is there under its name, as a restore needs it.
			target := itest.Start(t, daemon.Config{Version: way[1]}, image.Redis)
			target.Must(t, "images", "import", "--no-unpack", archive)
			restore(t, target, "redis", ref)
			s.proven(t, target, "redis")
		})
	}
}
