// SPDX-License-Identifier: Apache-2.0

package migrate

import (
	"fmt"
	"os"
	"path/filepath"
	goruntime "runtime"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/io-mig/mig/layers/engine"
	"github.com/io-mig/mig/layers/engine/switchover"
	"github.com/io-mig/mig/runtime"
)

// TestMain is also the engine, which is a process of the same binary, and a
// container's init.
func TestMain(m *testing.M) {
	runtime.Init()
	if len(os.Args) > 1 && os.Args[1] == "engine" {
		injectFault()
		os.Exit(engine.Main(os.Args[2:]))
	}
	code := m.Run()
	if ticker.path != "" {
		os.RemoveAll(filepath.Dir(ticker.path))
	}
	os.Exit(code)
}

// faultFile says what the next engines do: "record FILE" appends the steps that
// they take to a file, with the time in microseconds, "kill STEP" has them die there, "stop STEP" stop there as
// a whole, as one whose host is lost.
func faultFile() string {
	exe, err := os.Executable()
	if err != nil {
		panic(err)
	}
	return exe + ".fault"
}

func injectFault() {
	b, err := os.ReadFile(faultFile())
	if err != nil {
		return
	}
	verb, what, _ := strings.Cut(string(b), " ")
	switchover.Point = func(name string) {
		switch {
		case verb == "record":
			f, err := os.OpenFile(what, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
			if err == nil {
				fmt.Fprintf(f, "%d\t%s\n", time.Now().UnixMicro(), name)
				f.Close()
			}
		case verb == "kill" && name == what:
			_ = unix.Kill(os.Getpid(), unix.SIGKILL)
			select {}
		case verb == "stop" && name == what:
			// To this thread, which stops before its call returns: a signal to the
			// process may be another thread's, and this one would go on meanwhile.
			goruntime.LockOSThread()
			_ = unix.Tgkill(os.Getpid(), unix.Gettid(), unix.SIGSTOP)
			goruntime.UnlockOSThread()
		}
	}
}

// fault sets what the next engines do; an empty text nothing.
func fault(t testing.TB, text string) {
	t.Helper()
	var err error
	if text == "" {
		if err = os.Remove(faultFile()); os.IsNotExist(err) {
			err = nil
		}
	} else {
		err = os.WriteFile(faultFile(), []byte(text), 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
}
