// SPDX-License-Identifier: Apache-2.0

package directory

import (
	"bufio"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/io-mig/mig/layers/medium/mediumtest"
)

const killedEnv = "MIG_TEST_KILLED_WRITER"

// TestKilledWriter: a writer that dies by SIGKILL leaves no file, and the
// directory is free for the next one.
func TestKilledWriter(t *testing.T) {
	if path := os.Getenv(killedEnv); path != "" {
		w := newWriter(t, path, Options{})
		for i := range 50 {
			if err := w.PushData(t.Context(), mediumtest.Record(i, 100<<10)); err != nil {
				t.Fatal(err)
			}
		}
		os.Stdout.WriteString("ready\n")
		select {}
	}
	path := filepath.Join(t.TempDir(), "image")
	cmd := exec.Command("/proc/self/exe", "-test.run", "^TestKilledWriter$")
	cmd.Env = append(os.Environ(), killedEnv+"="+path)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil || line != "ready\n" {
		t.Fatalf("%q %v", line, err)
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait()
	if left := names(t, path); left != "" {
		t.Errorf("a killed writer left %s", left)
	}
	if _, err := OpenImage(path); err == nil {
		t.Error("an image was found")
	}
	writeOne(t, path)
}
