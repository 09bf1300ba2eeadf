// SPDX-License-Identifier: Apache-2.0

package tty

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"

	"golang.org/x/sys/unix"
)

// What peek has read it has to put back, and the engine may be killed at any
// moment. So a process of its own does it, in a session of its own: this
// program, started under a name by which it knows what it is to do. It lives
// for some milliseconds, and only where something is unread.

// helperName is the helper's argv[0].
const helperName = "mig-terminal-peek"

// Descriptors of the helper.
const (
	helperAnswer = 1
	helperSlave  = 3
	helperMaster = 4
)

// Its argument says whether it has a master.
const withMaster, withoutMaster = "master", "no-master"

func init() {
	if len(os.Args) == 2 && os.Args[0] == helperName {
		os.Exit(help(os.Args[1] == withMaster))
	}
}

// answer is what the helper says.
type answer struct {
	Input, Output []byte
	Error         string
	// Stopped: nothing was touched, since nothing could be put back.
	Stopped bool
}

// help is the helper.
func help(hasMaster bool) int {
	signal.Ignore(unix.SIGPIPE, unix.SIGHUP, unix.SIGINT, unix.SIGTERM)
	master := helperMaster
	if !hasMaster {
		master = -1
	}
	var a answer
	var err error
	a.Input, a.Output, err = peek(helperSlave, master)
	if err != nil {
		a.Error, a.Stopped = err.Error(), errors.Is(err, errStopped)
	}
	if json.NewEncoder(os.NewFile(helperAnswer, "answer")).Encode(&a) != nil {
		return 1
	}
	return 0
}

// peekByHelper is peek in a helper.
func peekByHelper(slave, master int) (a answer, err error) {
	pid, r, err := startHelper(slave, master)
	if err != nil {
		return a, fmt.Errorf("start a helper for terminals: %w", err)
	}
	defer r.Close()
	// Each direction is at most maxUnread and one read more, in base64.
	b, err := io.ReadAll(io.LimitReader(r, 4*maxUnread+1<<20))
	_, waitErr := syscall.Wait4(pid, nil, 0, nil)
	if err = errors.Join(err, waitErr); err == nil {
		err = json.Unmarshal(b, &a)
	}
	if err != nil {
		return a, fmt.Errorf("helper for terminals: %w", err)
	}
	return a, nil
}

// startHelper returns where its answer can be read from.
func startHelper(slave, master int) (pid int, r *os.File, err error) {
	r, w, err := os.Pipe()
	if err != nil {
		return 0, nil, err
	}
	defer w.Close()
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return 0, nil, errors.Join(err, r.Close())
	}
	defer null.Close()
	files := []uintptr{null.Fd(), w.Fd(), null.Fd(), uintptr(slave)}
	arg := withoutMaster
	if master >= 0 {
		files, arg = append(files, uintptr(master)), withMaster
	}
	pid, err = syscall.ForkExec("/proc/self/exe", []string{helperName, arg}, &syscall.ProcAttr{Files: files, Sys: &syscall.SysProcAttr{Setsid: true}})
	if err != nil {
		return 0, nil, errors.Join(err, r.Close())
	}
	return pid, r, nil
}
