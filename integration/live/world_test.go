// SPDX-License-Identifier: Apache-2.0

// Package live tests live migration as users do it: two hosts (package lab) with
// a containerd and a migd each, and a third for clients.
package live

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/io-mig/mig/integration/internal/daemon"
	"github.com/io-mig/mig/integration/internal/image"
	"github.com/io-mig/mig/integration/internal/itest"
	"github.com/io-mig/mig/integration/internal/lab"
	"github.com/io-mig/mig/integration/internal/nerdctl"
)

func TestMain(m *testing.M) {
	if len(os.Args) == 4 && os.Args[1] == "internal" && os.Args[2] == "oci-hook" { // see nerdctl.WithHooks
		if err := nerdctl.Hook(os.Args[3], os.Stdin); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	if len(os.Args) > 4 && os.Args[1] == "internal" && os.Args[2] == restrict {
		fmt.Fprintln(os.Stderr, runRestricted(os.Args[3], os.Args[4:]))
		os.Exit(1)
	}
	itest.Main(m)
}

// world is two hosts and a client's.
type world struct {
	t           *testing.T
	lab         *lab.Lab
	alpha, beta *host
	client      *lab.Host
	ca          string // directory of the authority
}

// host is a host with its daemons.
type host struct {
	*lab.Host
	d    *itest.Host
	tls  string
	migd *migd
	// under is a command that runs migd, with what it may do; usually none.
	under []string
}

// newWorld makes the hosts. The images are those of alpha.
func newWorld(t *testing.T, source daemon.Version, images ...image.Image) *world {
	t.Helper()
	return newWorldOf(t, "", func(*lab.Lab) error { return nil }, source, images...)
}

// newWorldOf makes hosts that are prepared before anything runs on them, and whose
// shims run another program as their engine; empty: mig's.
func newWorldOf(t *testing.T, engine string, prepare func(*lab.Lab) error, source daemon.Version, images ...image.Image) *world {
	t.Helper()
	l, err := lab.New("alpha", "beta", "client")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := l.Close(); err != nil {
			t.Errorf("end of the lab: %v", err)
		}
	})
	if err := prepare(l); err != nil {
		t.Fatal(err)
	}
	w := &world{t: t, lab: l, client: l.Hosts[2], ca: filepath.Join(t.TempDir(), "ca")}
	w.alpha = w.host(l.Hosts[0], source, engine, images...)
	w.beta = w.host(l.Hosts[1], daemon.V24, engine)
	w.mustCerts("init")
	for _, h := range []*host{w.alpha, w.beta} {
		w.mustCerts("host", h.Name, "--ip", h.IP)
		h.tls = filepath.Join(w.ca, "hosts", h.Name)
		h.migd = w.startMigd(h)
	}
	return w
}

func (w *world) host(h *lab.Host, version daemon.Version, engine string, images ...image.Image) *host {
	w.t.Helper()
	return &host{Host: h, d: itest.Start(w.t, daemon.Config{Version: version, Enter: h.Enter(), Namespace: w.lab.Name, Engine: engine}, images...)}
}

// mustCerts runs mig certs.
func (w *world) mustCerts(args ...string) {
	w.t.Helper()
	cmd := exec.Command(w.alpha.d.Tree.Bin("mig"), append([]string{"certs", "--dir", w.ca}, args...)...)
	if out, err := cmd.CombinedOutput(); err != nil {
		w.t.Fatalf("mig certs %v: %v\n%s", args, err, out)
	}
}

// migd is a running daemon.
type migd struct {
	cmd    *exec.Cmd
	exited chan error
	log    string
}

const migdReady = 20 * time.Second

// startMigd starts the daemon of a host and waits until it listens.
func (w *world) startMigd(h *host, flags ...string) *migd {
	w.t.Helper()
	m := &migd{exited: make(chan error, 1), log: filepath.Join(w.t.TempDir(), "migd.log")}
	log, err := os.Create(m.log)
	if err != nil {
		w.t.Fatal(err)
	}
	defer log.Close()
	args := append([]string{"--containerd", h.d.Address, "--listen", h.IP + ":7117", "--tls", h.tls, "--metrics", "127.0.0.1:9117", "--debug"}, flags...)
	command := slices.Concat(h.under, []string{h.d.Tree.Bin("migd")}, args)
	m.cmd = h.Command(context.Background(), command[0], command[1:]...)
	m.cmd.Stdout, m.cmd.Stderr = log, log
	if err := m.cmd.Start(); err != nil {
		w.t.Fatal(err)
	}
	go func() { m.exited <- m.cmd.Wait() }()
	w.t.Cleanup(func() {
		if err := m.stop(syscall.SIGTERM); err != nil {
			w.t.Errorf("migd of %s: %v", h.Name, err)
		}
		if w.t.Failed() {
			w.t.Logf("migd of %s says:\n%s", h.Name, m.says())
		}
	})
	waitFor(w.t, migdReady, "migd of "+h.Name+" listens", func() bool { return strings.Contains(m.says(), "msg=ready") })
	return m
}

func (m *migd) says() string {
	b, err := os.ReadFile(m.log)
	if err != nil {
		return err.Error()
	}
	return string(b)
}

// stop ends the daemon with a signal, once.
func (m *migd) stop(signal syscall.Signal) error {
	if m.cmd == nil {
		return nil
	}
	cmd := m.cmd
	m.cmd = nil
	if err := cmd.Process.Signal(signal); err != nil {
		return err
	}
	select {
	case err := <-m.exited:
		if signal == syscall.SIGKILL {
			return nil
		}
		return err
	case <-time.After(20 * time.Second):
		_ = cmd.Process.Kill()
		return fmt.Errorf("it does not end by %v", signal)
	}
}

// report is what mig migrate --json prints.
type report struct {
	Token      string
	Moved      bool
	Removed    bool
	Started    time.Time
	Bytes      uint64
	Pages      uint64
	ImageBytes uint64  `json:"image_bytes"`
	DowntimeMS float64 `json:"downtime_ms"`
	TotalMS    float64 `json:"total_ms"`
	InDoubtMS  float64 `json:"in_doubt_ms"`
	Warnings   []string
	States     []struct { // of the source's engine
		State string
		At    time.Time
	}
	Failure *struct{ Kind, Text string }
}

// switched is when the copy ran, as the source knows.
func (r *report) switched() time.Time {
	for _, s := range r.States {
		if s.State == "decided" {
			return s.At
		}
	}
	return r.Started.Add(time.Duration(r.TotalMS * float64(time.Millisecond)))
}

// migrate prepares mig migrate on a host.
func (h *host) migrate(ctx context.Context, args ...string) *exec.Cmd {
	full := append([]string{"migrate", "--json", "-n", h.d.Namespace, "--containerd", h.d.Address,
		"--state", filepath.Join(h.d.Dir, "state"), "--tls", h.tls}, args...)
	return h.Command(ctx, h.d.Tree.Bin("mig"), full...)
}

// moveLimit is longer than any move of these tests takes: one in which nothing
// happens ends by itself before, see control.Tuning.Watchdog.
const moveLimit = 5 * time.Minute

// move moves a container, or says why not.
func (h *host) move(ctx context.Context, args ...string) (*report, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var stuck atomic.Pointer[string]
	defer time.AfterFunc(moveLimit, func() {
		evidence := itest.Evidence()
		stuck.Store(&evidence)
		cancel()
	}).Stop()
	var out, errs bytes.Buffer
	cmd := h.migrate(ctx, args...)
	cmd.Stdout, cmd.Stderr = &out, &errs
	err := cmd.Run()
	if evidence := stuck.Load(); evidence != nil {
		return nil, fmt.Errorf("mig migrate %v: no end within %v: %w: %s%s\n%s", args, moveLimit, err, out.String(), errs.String(), *evidence)
	}
	r := &report{}
	if jerr := json.Unmarshal(out.Bytes(), r); jerr != nil {
		return nil, fmt.Errorf("mig migrate %v: %w: %v\n%s%s", args, err, jerr, out.String(), errs.String())
	}
	if err != nil {
		return r, fmt.Errorf("%w: %s", err, errs.String())
	}
	return r, nil
}

// mustMove moves a container to another host.
func (w *world) mustMove(from *host, args ...string) *report {
	w.t.Helper()
	r, err := from.move(w.t.Context(), args...)
	if err != nil {
		w.t.Fatal(err)
	}
	if !r.Moved || r.Failure != nil {
		w.t.Fatalf("mig migrate: %+v", r)
	}
	w.t.Logf("%s -> %v: %.1f ms, stopped for %.2f ms, %d bytes, %d of the image", from.Name, args, r.TotalMS, r.DowntimeMS, r.Bytes, r.ImageBytes)
	return r
}

// refused checks that a move is refused for a reason, and that nothing happened.
func (w *world) refused(from *host, why string, args ...string) *report {
	w.t.Helper()
	r, err := from.move(w.t.Context(), args...)
	if err == nil || !strings.Contains(err.Error(), why) {
		w.t.Fatalf("mig migrate %v says %v, want %q", args, err, why)
	}
	return r
}

// waitFor waits for a state.
func waitFor(t *testing.T, within time.Duration, what string, state func() bool) {
	t.Helper()
	for end := time.Now().Add(within); !state(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			t.Log(itest.Evidence())
			t.Fatalf("not within %s: %s", within, what)
		}
	}
}
