// SPDX-License-Identifier: Apache-2.0

package runtime

import (
	"context"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// BenchmarkRun is a container from Create to Destroy; BenchmarkRunc is the same
// bundle by runc, if there is one: create, start and delete as three processes,
// as containerd's runc shim does it.
func BenchmarkRun(b *testing.B) {
	s := newSandbox(b)
	for b.Loop() {
		c, err := Create(b.Context(), s.options("bench", s.spec("bench", "true")))
		if err != nil {
			b.Fatal(err)
		}
		if err := c.Start(b.Context()); err != nil {
			b.Fatal(err)
		}
		<-c.Init().Done()
		if err := c.Destroy(context.Background()); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkRunc(b *testing.B) {
	runc, err := exec.LookPath("runc")
	if err != nil {
		b.Skip(err)
	}
	s := newSandbox(b)
	spec, err := json.Marshal(s.spec("bench-runc", "true"))
	if err != nil {
		b.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(s.bundle, "config.json"), spec, 0o644); err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		for _, args := range [][]string{{"create", "--bundle", s.bundle, "bench"}, {"start", "bench"}, {"delete", "--force", "bench"}} {
			// No pipes for its output: the container would keep them open.
			if err := exec.Command(runc, append([]string{"--root", s.root}, args...)...).Run(); err != nil {
				b.Fatalf("runc %s: %v", args[0], err)
			}
		}
	}
}
