// SPDX-License-Identifier: Apache-2.0

package live

import (
	"context"
	"crypto/x509"
	"encoding/pem"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/io-mig/mig/integration/internal/daemon"
	"github.com/io-mig/mig/integration/internal/image"
	"github.com/io-mig/mig/integration/internal/itest"
)

// TestRefused: what does not fit is named, before anything is touched. The
// container runs on with the same process, and the destination stays clean.
func TestRefused(t *testing.T) {
	w := newWorld(t, daemon.V24, image.Busybox)
	const id = "web"
	w.run(w.alpha, image.Busybox, id, "sleep", "1000")
	pid := w.alpha.pid(id)
	unharmed := func(t *testing.T) {
		t.Helper()
		if now := w.alpha.pid(id); now != pid || w.alpha.status(id) != "RUNNING" {
			t.Errorf("pid %s was %s, the task is %q", now, pid, w.alpha.status(id))
		}
	}
	t.Run("a move to the host it is on", func(t *testing.T) {
		w.refused(w.alpha, "is the host that container web is on", id, w.alpha.IP)
		unharmed(t)
	})
	t.Run("nobody listens", func(t *testing.T) {
		w.refused(w.alpha, "connection refused", id, w.client.IP)
		unharmed(t)
	})
	t.Run("another name than the certificate's", func(t *testing.T) {
		w.refused(w.alpha, "gamma", "--peer", "gamma", id, w.beta.IP)
		unharmed(t)
	})
	t.Run("no such container", func(t *testing.T) {
		w.refused(w.alpha, "there is no container nobody", "nobody", w.beta.IP)
	})
	t.Run("paused", func(t *testing.T) {
		w.alpha.d.Must(t, "tasks", "pause", id)
		w.refused(w.alpha, "is paused, and its copy would run", id, w.beta.IP)
		w.alpha.d.Must(t, "tasks", "resume", id)
		unharmed(t)
	})
	t.Run("plain text to another machine", func(t *testing.T) {
		cmd := w.alpha.Command(t.Context(), w.alpha.d.Tree.Bin("mig"), "migrate", "-n", w.alpha.d.Namespace, "--containerd", w.alpha.d.Address, "--insecure", id, w.beta.IP)
		if out, err := cmd.CombinedOutput(); err == nil || !strings.Contains(string(out), "--insecure is for tests on the loopback interface") {
			t.Errorf("%v: %s", err, out)
		}
		unharmed(t)
	})
	t.Run("everything at once", func(t *testing.T) {
		w.beta.d.Load(t, image.Busybox)
		w.run(w.beta, image.Busybox, id, "sleep", "1000")
		r := w.refused(w.alpha, "there is a container web in the namespace", id, w.beta.IP)
		if !strings.Contains(r.Failure.Text, "there is a snapshot web") {
			t.Errorf("the snapshot is not named: %s", r.Failure.Text)
		}
		unharmed(t)
		w.beta.d.Remove(id)
	})
	w.clean(w.beta)
}

// TestMountsAreLookedFor: a directory of the source is missing on the
// destination.
func TestMountsAreLookedFor(t *testing.T) {
	w := newWorld(t, daemon.V24, image.Busybox)
	// /run is each host's own.
	if err := w.alpha.Run("mkdir /run/data"); err != nil {
		t.Fatal(err)
	}
	w.d(w.alpha, "--mount", "type=bind,src=/run/data,dst=/mnt,options=rbind:ro", "sleeper")
	r := w.refused(w.alpha, "mount on /mnt: there is no /run/data", "sleeper", w.beta.IP)
	if w.alpha.status("sleeper") != "RUNNING" || r.Moved {
		t.Error("the container does not run")
	}
	if err := w.beta.Run("mkdir /run/data"); err != nil {
		t.Fatal(err)
	}
	w.mustMove(w.alpha, "sleeper", w.beta.IP)
	w.one("sleeper", w.beta, w.alpha)
}

// d runs a sleeping container with further flags of ctr run.
func (w *world) d(h *host, args ...string) {
	w.t.Helper()
	id := args[len(args)-1]
	full := append([]string{"run", "--detach", "--null-io", "--snapshotter", h.d.Snapshotter, "--runtime", itest.Mig}, args[:len(args)-1]...)
	h.d.Must(w.t, append(full, image.Busybox.Name, id, "sleep", "1000")...)
	w.t.Cleanup(func() {
		w.alpha.d.Remove(id)
		w.beta.d.Remove(id)
	})
}

// TestCertificates: hosts of another authority, expired and revoked certificates
// are turned away; a new certificate counts without a restart.
func TestCertificates(t *testing.T) {
	w := newWorld(t, daemon.V24, image.Busybox)
	const id = "web"
	w.run(w.alpha, image.Busybox, id, "sleep", "1000")
	mig := w.alpha.d.Tree.Bin("mig")
	certs := func(t *testing.T, dir string, args ...string) {
		t.Helper()
		if out, err := exec.Command(mig, append([]string{"certs", "--dir", dir}, args...)...).CombinedOutput(); err != nil {
			t.Fatalf("mig certs %v: %v\n%s", args, err, out)
		}
	}
	t.Run("another authority", func(t *testing.T) {
		other := filepath.Join(t.TempDir(), "ca")
		certs(t, other, "init")
		certs(t, other, "host", "alpha", "--ip", w.alpha.IP)
		good := w.alpha.tls
		defer func() { w.alpha.tls = good }()
		w.alpha.tls = filepath.Join(other, "hosts", "alpha")
		w.refused(w.alpha, "certificate signed by unknown authority", id, w.beta.IP)
		// The destination does not take it either, when the source trusts it.
		ca, err := os.ReadFile(filepath.Join(good, "ca.pem"))
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(w.alpha.tls, "ca.pem"), ca, 0o600); err != nil {
			t.Fatal(err)
		}
		w.refused(w.alpha, "remote error: tls", id, w.beta.IP)
	})
	t.Run("expired", func(t *testing.T) {
		w.replaceBy(t, time.Now().Add(-3*time.Hour))
		w.refused(w.alpha, "remote error: tls: expired certificate", id, w.beta.IP)
		w.mustCerts("host", "alpha", "--ip", w.alpha.IP)
	})
	t.Run("of a clock that is ahead", func(t *testing.T) {
		w.replaceBy(t, time.Now().Add(10*time.Minute))
		w.refused(w.alpha, "remote error: tls: expired certificate", id, w.beta.IP) // TLS has no other word for it
		waitFor(t, migdReady, "the other host says why", func() bool { return strings.Contains(w.beta.migd.says(), "is not yet valid") })
		w.mustCerts("host", "alpha", "--ip", w.alpha.IP)
		// What mig makes an hour ahead of others counts there at once.
		b, err := os.ReadFile(filepath.Join(w.alpha.tls, "host.pem"))
		if err != nil {
			t.Fatal(err)
		}
		block, _ := pem.Decode(b)
		cert, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			t.Fatal(err)
		}
		if ahead := time.Since(cert.NotBefore); ahead < time.Hour {
			t.Errorf("certificates are valid only %s back", ahead)
		}
	})
	t.Run("revoked", func(t *testing.T) {
		w.mustCerts("revoke", "alpha")
		w.refused(w.alpha, "remote error: tls: bad certificate", id, w.beta.IP)
		w.mustCerts("host", "alpha", "--ip", w.alpha.IP)
	})
	if w.alpha.status(id) != "RUNNING" {
		t.Fatal("the container does not run")
	}
	w.mustMove(w.alpha, id, w.beta.IP)
	w.one(id, w.beta, w.alpha)
}

// replaceBy gives alpha a certificate that is valid for two hours, from then on.
func (w *world) replaceBy(t *testing.T, from time.Time) {
	t.Helper()
	cert, key := validFor(t, w.ca, w.alpha.IP, from)
	for file, block := range map[string]*pem.Block{"host.pem": {Type: "CERTIFICATE", Bytes: cert}, "host.key": {Type: "EC PRIVATE KEY", Bytes: key}} {
		if err := os.WriteFile(filepath.Join(w.alpha.tls, file), pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// pid is the process id of a task's first process.
func (h *host) pid(id string) string {
	for line := range strings.Lines(h.d.Ctr(context.Background(), "tasks", "ls").Stdout) {
		if f := strings.Fields(line); len(f) == 3 && f[0] == id {
			return f[1]
		}
	}
	return ""
}
