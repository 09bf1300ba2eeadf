// SPDX-License-Identifier: Apache-2.0

// Package variants makes round trips of containers of many kinds: users and
// groups, namespaces, seccomp profiles, limits, mounts, standard streams. What
// runs in them knows what it is and looks whether it still is (see
// testdata/witness.c), and what the kernel says of it in /proc is compared
// before and after.
package variants

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"

	"github.com/containerd/containerd/v2/client"

	"github.com/io-mig/mig/integration/internal/daemon"
	"github.com/io-mig/mig/integration/internal/image"
	"github.com/io-mig/mig/integration/internal/itest"
)

func TestMain(m *testing.M) { os.Exit(run(m)) }

func run(m *testing.M) int {
	if err := mountUnified(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	dir, err := os.MkdirTemp("", "migvariants")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	workDir = dir
	return itest.Run(m)
}

var workDir string // of this process's programs

// witness compiles the program under test, once.
var witness = sync.OnceValues(func() (string, error) {
	path := filepath.Join(workDir, "witness")
	out, err := exec.Command("gcc", "-O2", "-Wall", "-static", "-pthread", "testdata/witness.c", "-o", path).CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("build the witness: %w: %s", err, out)
	}
	return path, nil
})

// The images of these tests.
const witnessImage = "mig.test/witness:1"

// host is a private containerd with a client.
type host struct {
	*itest.Host
	client *client.Client
}

func startHost(t *testing.T, version daemon.Version, images ...image.Image) *host {
	t.Helper()
	program, err := witness()
	if err != nil {
		t.Fatal(err)
	}
	images = append(images, image.Image{Name: witnessImage, Command: []string{"/witness"}, Extra: map[string]string{"/witness": program}})
	h := &host{Host: itest.Start(t, daemon.Config{Version: version}, images...)}
	if h.client, err = client.New(h.Address); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { h.client.Close() })
	return h
}
