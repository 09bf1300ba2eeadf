// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"runtime"
	"strconv"
	"strings"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/io-mig/mig/layers/request/journal"
	"github.com/io-mig/mig/spec/wire"
)

// halt stops this engine, as one whose host is lost, where its container's move is
// to stop. Others' moves go on: each container has a file of its own.
func halt(self, step string) error {
	id := container()
	if id == "" {
		return nil // nothing says yet whose engine this is
	}
	file := self + ".stop." + id
	at, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err == nil && string(at) == step {
		err = os.Rename(file, file+"."+strconv.Itoa(os.Getpid()))
		if err == nil {
			stop()
		}
	}
	if err != nil {
		return fmt.Errorf("stop of %s: %w", id, err)
	}
	return nil
}

// stop sends the signal to this thread, which stops before its call returns: a
// signal to the process may be another thread's, and this one would go on meanwhile.
func stop() {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	_ = unix.Tgkill(os.Getpid(), unix.Gettid(), unix.SIGSTOP)
}

// container is whom this engine moves, which its journal names; empty: it has none.
var container = sync.OnceValue(func() string {
	files, _ := os.ReadDir(journal.Dir)
	for _, f := range files {
		name, side, _ := strings.Cut(f.Name(), ".")
		token, err := wire.ParseToken(name)
		if err != nil {
			continue
		}
		if s, err := journal.Read(journal.Dir, token, journal.Side(side)); err == nil && s.Engine.Pid == os.Getpid() {
			return s.Container
		}
	}
	return ""
})
