// SPDX-License-Identifier: Apache-2.0

// Package daemon runs a private containerd: its own socket, root, state and
// log, a PATH that starts with the shim under test, and an end that leaves
// nothing behind even if shims and containers were left running.
package daemon

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"sync"
	"syscall"
	"time"

	"github.com/io-mig/mig/integration/internal/repo"
	"github.com/io-mig/mig/integration/internal/scope"
)

// Config says what to start. The zero value of each field has a meaning.
type Config struct {
	Version Version // required
	CRI     bool    // load the CRI plugin
	Extra   string  // more TOML for the configuration file
	Env     []string
	// Enter is a command that runs its arguments as a command elsewhere, for
	// tests with several hosts: see package lab. Empty runs them here.
	Enter []string
	// Namespace is containerd's namespace; empty means one of the daemon's own.
	Namespace string
	// Engine is a program that the shim runs instead of the tree's mig-engine, of the same
	// build; empty means none. It runs as Daemon.Engine.
	Engine string
}

// Daemon is a running containerd. Its methods may be called from any
// goroutine, Restart and Close excepted.
type Daemon struct {
	Version     Version
	Dir         string // everything of this daemon is below
	Address     string // gRPC socket
	Namespace   string // containerd namespace of its own, in every Ctr call
	Snapshotter string // the best that works on Dir's file system

	tree     repo.Tree
	programs programs
	config   Config
	scope    scope.Scope
	cmd      *exec.Cmd
	exited   chan struct{}
	ids      sync.Map // see noteIDs
}

// startTimeout bounds the wait for a new daemon's first answer.
const startTimeout = 30 * time.Second

// Start starts a daemon and waits until it answers. The caller must Close it.
func Start(ctx context.Context, tree repo.Tree, config Config) (*Daemon, error) {
	programs, err := config.Version.programs(tree)
	if err != nil {
		return nil, err
	}
	s, err := scope.New()
	if err != nil {
		return nil, err
	}
	d := &Daemon{
		Version: config.Version, Dir: s.Dir, Address: filepath.Join(s.Dir, "c.sock"), Namespace: s.Name,
		tree: tree, programs: programs, config: config, scope: s,
	}
	if config.Namespace != "" {
		d.Namespace = config.Namespace
	}
	err = d.prepare()
	if err == nil {
		err = d.launch(ctx)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("start containerd %s: %w", config.Version, err), d.Close())
	}
	return d, nil
}

// prepare fills Dir: configuration, PATH, temporary directory.
func (d *Daemon) prepare() error {
	for _, dir := range []string{"root", "state", "opt", "tmp", "path"} {
		if err := os.Mkdir(filepath.Join(d.Dir, dir), 0o711); err != nil {
			return err
		}
	}
	d.Snapshotter = "native"
	if overlayWorks(d.Dir) {
		d.Snapshotter = "overlayfs"
	}
	shim := d.tree.Bin("containerd-shim-mig-v1")
	if d.config.Engine != "" {
		own := filepath.Join(filepath.Dir(d.Engine()), filepath.Base(shim))
		if err := errors.Join(os.Mkdir(filepath.Dir(own), 0o711), copyProgram(own, shim), copyProgram(d.Engine(), d.config.Engine)); err != nil {
			return err
		}
		shim = own
	}
	links := map[string]string{
		"containerd-shim-mig-v1":  shim,
		"mig":                     d.tree.Bin("mig"),
		"migd":                    d.tree.Bin("migd"),
		"containerd-shim-runc-v2": d.programs.runcShim,
		"runc":                    d.tree.Tool("runc"),
	}
	for name, target := range links {
		if err := os.Symlink(target, filepath.Join(d.Dir, "path", name)); err != nil {
			return err
		}
	}
	config := d.Version.config(d.Dir, d.config.CRI, d.config.Extra)
	return os.WriteFile(filepath.Join(d.Dir, "config.toml"), []byte(config), 0o600)
}

// Engine is where the shim finds Config.Engine: in the directory of its own program,
// which therefore is a copy.
func (d *Daemon) Engine() string { return filepath.Join(d.Dir, "bin", "mig-engine") }

func copyProgram(to, from string) error {
	b, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	return os.WriteFile(to, b, 0o755)
}

// overlayWorks mounts an overlay in dir, as not every file system (an overlay
// is one) can carry its upper directory.
func overlayWorks(dir string) bool {
	base := filepath.Join(dir, "overlay-probe")
	defer os.RemoveAll(base)
	for _, name := range []string{"lower", "upper", "work", "merged"} {
		if os.MkdirAll(filepath.Join(base, name), 0o700) != nil {
			return false
		}
	}
	options := fmt.Sprintf("lowerdir=%[1]s/lower,upperdir=%[1]s/upper,workdir=%[1]s/work", base)
	merged := filepath.Join(base, "merged")
	if syscall.Mount("overlay", merged, "overlay", 0, options) != nil {
		return false
	}
	return syscall.Unmount(merged, syscall.MNT_DETACH) == nil
}

// launch starts the process and waits for its first answer.
func (d *Daemon) launch(ctx context.Context) error {
	log, err := os.OpenFile(d.logPath(), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer log.Close()
	args := []string{d.programs.containerd, "--config", filepath.Join(d.Dir, "config.toml")}
	args = append(slices.Clone(d.config.Enter), args...)
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Dir = d.Dir
	cmd.Env = append(d.environ(), d.scope.Mark())
	cmd.Env = append(cmd.Env, d.config.Env...)
	cmd.Stdout, cmd.Stderr = log, log
	// A group of its own: an interrupt at the terminal must reach us, not it.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := cmd.Start(); err != nil {
		return err
	}
	exited := make(chan struct{})
	go func() { defer close(exited); _ = cmd.Wait() }()
	d.cmd, d.exited = cmd, exited
	return d.awaitReady(ctx)
}

func (d *Daemon) awaitReady(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	for {
		if _, err := os.Stat(d.Address); err == nil && d.Ctr(ctx, "version").Err() == nil {
			return nil
		}
		select {
		case <-d.exited:
			return fmt.Errorf("it exited with %v:\n%s", d.cmd.ProcessState, d.Log())
		case <-ctx.Done():
			return fmt.Errorf("no answer within %v:\n%s", startTimeout, d.Log())
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// environ is the environment of the daemon, its shims and our ctr calls: one
// PATH for all of them and a TMPDIR that is checked at the end.
func (d *Daemon) environ() []string {
	path := filepath.Join(d.Dir, "path") + ":/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
	return []string{
		"PATH=" + path, "TMPDIR=" + filepath.Join(d.Dir, "tmp"), "HOME=/root", "LANG=C.UTF-8",
		"CONTAINERD_SNAPSHOTTER=" + d.Snapshotter,
	}
}

// Pid returns the process id of the daemon.
func (d *Daemon) Pid() int { return d.cmd.Process.Pid }

// Stop ends the daemon with a signal and leaves shims and containers running.
func (d *Daemon) Stop(signal syscall.Signal) error {
	if d.cmd == nil {
		return nil
	}
	if err := d.cmd.Process.Signal(signal); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("signal containerd %d: %w", d.Pid(), err)
	}
	select {
	case <-d.exited:
		return nil
	case <-time.After(10 * time.Second):
		_ = d.cmd.Process.Kill()
		<-d.exited
		return fmt.Errorf("containerd %d did not end within 10 s of %v", d.Pid(), signal)
	}
}

// Restart stops the daemon with a signal and starts it again on the same
// state, as an upgrade of the package does.
func (d *Daemon) Restart(ctx context.Context, signal syscall.Signal) error {
	if err := d.Stop(signal); err != nil {
		return err
	}
	return d.launch(ctx)
}

// Leaks names what is left of this daemon's containers: call it once all of
// them are removed. It waits a little for processes that are just ending.
func (d *Daemon) Leaks() []string {
	return append(d.scope.Leaks(d.cmd.Process.Pid), d.socketLeaks()...)
}

// Processes finds the daemon, its shims, their engines and containers.
func (d *Daemon) Processes() []scope.Process { return d.scope.Processes() }

// Close stops the daemon, kills what it left running and removes Dir. It
// reports what it could not clean, not what it had to clean: see Leaks.
func (d *Daemon) Close() error {
	return errors.Join(d.Stop(syscall.SIGTERM), d.scope.Destroy())
}

func (d *Daemon) logPath() string { return filepath.Join(d.Dir, "containerd.log") }

// logTail bounds what Log returns: a failure needs its last lines.
const logTail = 16 << 10

// WholeLog opens the daemon's log. The caller closes it.
func (d *Daemon) WholeLog() (*os.File, error) { return os.Open(d.logPath()) }

// Log returns the end of the daemon's log, shims included.
func (d *Daemon) Log() string {
	log, err := os.ReadFile(d.logPath())
	if err != nil {
		return err.Error()
	}
	if len(log) > logTail {
		log = log[len(log)-logTail:]
	}
	return string(log)
}
