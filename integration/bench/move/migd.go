// SPDX-License-Identifier: Apache-2.0

package move

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// migd is a running daemon.
type migd struct {
	cmd    *exec.Cmd
	exited chan error
	log    string // its file
}

// migdPatience bounds the start and the end of a daemon.
const migdPatience = 20 * time.Second

// startMigd starts a host's daemon for one transport and waits until it listens.
func (w *World) startMigd(ctx context.Context, h *Host, t Transport) (*migd, error) {
	name := h.Name + "-" + strings.ToLower(string(t))
	m := &migd{exited: make(chan error, 1), log: filepath.Join(w.dir, "migd-"+name+".log")}
	log, err := os.Create(m.log)
	if err != nil {
		return nil, err
	}
	defer log.Close()
	args := append([]string{"--containerd", h.d.Address, "--listen", h.address(t), "--state", "/run/migd-" + name}, h.identity(t)...)
	m.cmd = h.Command(context.WithoutCancel(ctx), w.tree.Bin("migd"), args...)
	m.cmd.Stdout, m.cmd.Stderr = log, log
	if err := m.cmd.Start(); err != nil {
		return nil, err
	}
	go func() { m.exited <- m.cmd.Wait() }()
	for end := time.Now().Add(migdPatience); !strings.Contains(m.says(), "msg=ready"); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) || ctx.Err() != nil {
			return nil, errors.Join(fmt.Errorf("migd %s does not get ready: %s", name, m.says()), m.stop())
		}
	}
	return m, nil
}

func (m *migd) says() string {
	b, err := os.ReadFile(m.log)
	if err != nil {
		return err.Error()
	}
	return string(b)
}

// stop ends the daemon.
func (m *migd) stop() error {
	if err := m.cmd.Process.Signal(syscall.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	select {
	case err := <-m.exited:
		return err
	case <-time.After(migdPatience):
		_ = m.cmd.Process.Kill()
		return errors.New("migd does not end by SIGTERM")
	}
}
