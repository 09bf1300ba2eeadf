// SPDX-License-Identifier: Apache-2.0

// Command stopengine is mig-engine for tests between hosts: it stops itself, as
// one whose host is lost, at a step of a move that the test has named. A file
// CONTAINER in the directory "stop" beside this program holds the step
// (switchover.Point); when the engine has come there the file is CONTAINER.PID.
// SIGCONT lets it go on.
package main

import (
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/io-mig/mig/layers/engine"
	"github.com/io-mig/mig/layers/engine/switchover"
	"github.com/io-mig/mig/layers/request/journal"
	"github.com/io-mig/mig/spec/wire"
)

func main() {
	switchover.Point = stop
	os.Exit(engine.Main(os.Args[1:]))
}

// stop is called at each step.
func stop(step string) {
	file := request()
	if file == "" {
		return
	}
	if at, err := os.ReadFile(file); err != nil || string(at) != step {
		return
	}
	if os.Rename(file, file+"."+strconv.Itoa(os.Getpid())) != nil {
		return
	}
	// To this thread, which stops before its call returns: a signal to the process
	// may be another thread's, and this one would go on meanwhile.
	runtime.LockOSThread()
	_ = unix.Tgkill(os.Getpid(), unix.Gettid(), unix.SIGSTOP)
	runtime.UnlockOSThread()
}

// request is the test's file for the container that this engine moves, which its
// journal names.
var request = sync.OnceValue(func() string {
	exe, err := os.Executable()
	if err != nil {
		return ""
	}
	files, _ := os.ReadDir(journal.Dir)
	for _, f := range files {
		name, side, _ := strings.Cut(f.Name(), ".")
		token, err := wire.ParseToken(name)
		if err != nil {
			continue
		}
		if s, err := journal.Read(journal.Dir, token, journal.Side(side)); err == nil && s.Engine.Pid == os.Getpid() {
			return filepath.Join(filepath.Dir(exe), "stop", s.Container)
		}
	}
	return ""
})
