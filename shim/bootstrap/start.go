// SPDX-License-Identifier: Apache-2.0

package bootstrap

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// TTRPCAddressEnv names the variable with containerd's ttrpc address.
const TTRPCAddressEnv = "TTRPC_ADDRESS"

// listenerFD is the descriptor of the listening socket in the server.
const listenerFD = 3

// Start runs the action `start` in the bundle (the working directory) and
// returns what belongs on stdout. shimCgroup, if not empty, is the cgroup that
// the server is put into (runc options, ShimCgroup).
//
// If it fails, neither a server nor a socket is left.
func Start(f Flags, p Params, shimCgroup string) ([]byte, error) {
	bundle, err := os.Getwd()
	if err != nil {
		return nil, err
	}
	if err := RemoveAbandoned(bundle); err != nil {
		return nil, err
	}
	group, err := Group(bundle, f.ID)
	if err != nil {
		return nil, err
	}
	path := SocketPath(p.SocketDir, p.GRPCAddress, f.Namespace, group)
	l, joined, err := Listen(path)
	if err != nil {
		return nil, err
	}
	// containerd 1.6 and 1.7 find the server again by this file, and `delete`
	// finds what a dead server leaves.
	err = WriteFileAtomic(filepath.Join(bundle, "address"), []byte(Address(path)))
	if !joined {
		if err == nil {
			err = serve(f, p, l, bundle, shimCgroup)
		}
		if l.Close(); err != nil {
			err = errors.Join(err, os.Remove(path))
		}
	}
	if err != nil {
		return nil, err
	}
	return p.Form.Encode(Address(path))
}

// serve starts this program again as the server on l.
func serve(f Flags, p Params, l *net.UnixListener, bundle, shimCgroup string) error {
	socket, err := l.File()
	if err != nil {
		return fmt.Errorf("listening socket: %w", err)
	}
	defer socket.Close()

	cmd, err := serverCommand(f, p, bundle)
	if err != nil {
		return err
	}
	cmd.ExtraFiles = []*os.File{socket}

	// A core scheduling domain is inherited from the thread that forks.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if os.Getenv("SCHED_CORE") != "" {
		if err := newSchedCore(); err != nil {
			return err
		}
	}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start the shim's server: %w", err)
	}
	if err := place(cmd.Process.Pid, shimCgroup); err != nil {
		return errors.Join(err, cmd.Process.Kill(), ignoreExit(cmd.Wait()))
	}
	return cmd.Process.Release()
}

func serverCommand(f Flags, p Params, bundle string) (*exec.Cmd, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, fmt.Errorf("path of this program: %w", err)
	}
	args := []string{"-namespace", f.Namespace, "-id", f.ID, "-address", p.GRPCAddress}
	if p.Debug {
		args = append(args, "-debug")
	}
	cmd := exec.Command(self, args...)
	cmd.Dir = bundle
	cmd.Env = serverEnv(os.Environ(), p.TTRPCAddress)
	// Signals to containerd's process group must not reach the server.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	return cmd, nil
}

// serverEnv drops the GOMAXPROCS that containerd gives the short-lived start
// and adds the events' address, if it came as a parameter.
func serverEnv(environ []string, ttrpcAddress string) []string {
	env := make([]string, 0, len(environ)+2)
	for _, e := range environ {
		if strings.HasPrefix(e, "GOMAXPROCS=") ||
			ttrpcAddress != "" && strings.HasPrefix(e, TTRPCAddressEnv+"=") {
			continue
		}
		env = append(env, e)
	}
	if ttrpcAddress != "" {
		env = append(env, TTRPCAddressEnv+"="+ttrpcAddress)
	}
	return append(env, "GOMAXPROCS=4")
}

// Listener is the socket that Start handed to this server.
func Listener() (net.Listener, error) {
	unix.CloseOnExec(listenerFD)
	f := os.NewFile(listenerFD, "shim socket")
	l, err := net.FileListener(f)
	if err != nil {
		return nil, fmt.Errorf("descriptor %d is no listening socket; this program is started by containerd: %w", listenerFD, err)
	}
	return l, f.Close()
}

func ignoreExit(err error) error {
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		return nil
	}
	return err
}
