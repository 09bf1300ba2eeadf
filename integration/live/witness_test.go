// SPDX-License-Identifier: Apache-2.0

package live

import (
	"net"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/io-mig/mig/integration/internal/image"
)

// witness is the image of a program of testdata that is asked over UDP what has
// become of it (control.h).
func witness(t *testing.T, name string) image.Image {
	t.Helper()
	program := filepath.Join(t.TempDir(), name)
	out, err := exec.Command("gcc", "-std=gnu11", "-O1", "-Wall", "-Wextra", "-Werror", "-static", "-pthread", "-o", program, filepath.Join("testdata", name+".c")).CombinedOutput()
	if err != nil {
		t.Fatalf("compile %s: %v\n%s", name, err, out)
	}
	return image.Image{Name: "mig.test/" + name + ":1", Command: []string{"/" + name}, Extra: map[string]string{"/" + name: program}}
}

// questions connects to a witness.
func (w *world) questions() *net.UDPConn {
	w.t.Helper()
	c, err := w.dialBy(w.t.Context(), "udp", podIP4+":7000")
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { c.Close() })
	return c.(*net.UDPConn)
}

// answer asks until somebody answers.
func (w *world) answer(c *net.UDPConn, question string) string {
	w.t.Helper()
	b := make([]byte, 1024)
	for end := time.Now().Add(patience); time.Now().Before(end); {
		// Refused until it is there.
		if _, err := c.Write([]byte(question)); err == nil {
			_ = c.SetReadDeadline(time.Now().Add(10 * time.Second))
			if n, err := c.Read(b); err == nil {
				return string(b[:n])
			}
		}
		time.Sleep(50 * time.Millisecond)
	}
	w.t.Fatalf("nobody answers %q", question)
	return ""
}

// good asks, and fails with any other answer than "good".
func (w *world) good(c *net.UDPConn, question string) {
	w.t.Helper()
	if a := w.answer(c, question); a != "good" {
		w.t.Errorf("asked to %s it says %q", question, a)
	}
}
