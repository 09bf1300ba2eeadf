// SPDX-License-Identifier: Apache-2.0

package runtime

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

func TestLoad(t *testing.T) {
	s := newSandbox(t)
	spec := s.spec("load", "sleep", "1000")
	spec.Annotations = map[string]string{"a": "b"}
	c := s.start(s.options("load", spec))
	l, err := Load(s.root, "load")
	must(t, err)
	want(t, "bundle", l.Bundle(), s.bundle)
	want(t, "pid", l.Init().Pid(), c.Init().Pid())
	want(t, "args", l.TargetProcess().Args[1], "1000")
	st, err := l.Status()
	must(t, err)
	want(t, "state", st.State, StateRunning)
	s.destroy(l)
	want(t, "the creator's status", waitDone(t, c.Init()), 137)
	want(t, "the loader's status", waitDone(t, l.Init()), 137)
	if _, err := Load(s.root, "load"); !errors.Is(err, ErrNotExist) {
		t.Error("load after destroy:", err)
	}
}

// TestLoadOfReusedPid: the pid in the state file belongs to somebody else now.
func TestLoadOfReusedPid(t *testing.T) {
	s := newSandbox(t)
	c := s.start(s.options("reuse", s.spec("reuse", "sleep", "1000")))
	path := filepath.Join(c.StateDir(), "state.json")
	data, err := os.ReadFile(path)
	must(t, err)
	must(t, os.WriteFile(path, replacePid(t, data, os.Getpid()), 0o600))
	l, err := Load(s.root, "reuse")
	must(t, err)
	st, err := l.Status()
	must(t, err)
	want(t, "state", st.State, StateStopped)
	if err := l.Signal(unix.SIGKILL, false); !errors.Is(err, ErrNotRunning) {
		t.Fatal("signal:", err) // it would have been for this test
	}
	s.destroy(l) // kills what is in the cgroup
	want(t, "status", waitDone(t, c.Init()), 137)
}

// TestLoadHalfMade: the creator died between its record and libcontainer's
// state, with a cgroup and createRuntime's traces made.
func TestLoadHalfMade(t *testing.T) {
	s := newSandbox(t)
	spec := s.spec("half", "sleep", "1000")
	mark := filepath.Join(s.bundle, "undone")
	spec.Hooks = hooks("poststop", "cat > "+mark)
	c := s.create(s.options("half", spec))
	must(t, os.Remove(filepath.Join(c.StateDir(), "state.json")))
	must(t, c.Signal(unix.SIGKILL, false))
	waitDone(t, c.Init())

	l, err := Load(s.root, "half")
	must(t, err)
	s.destroy(l)
	if _, err := os.Stat(mark); err != nil {
		t.Error("poststop hook:", err)
	}
}

// TestLoadOfNothing: the creator died before its record was complete.
func TestLoadOfNothing(t *testing.T) {
	s := newSandbox(t)
	dir := filepath.Join(s.root, "nothing")
	must(t, os.MkdirAll(dir, 0o700))
	must(t, os.WriteFile(filepath.Join(dir, recordFile+".new"), []byte("{"), 0o600))
	if _, err := Load(s.root, "nothing"); !errors.Is(err, ErrNotExist) {
		t.Error(err)
	}
	want(t, "status", func() int { _, st := s.run("nothing", s.spec("nothing", "true")); return st }(), 0)
}

func replacePid(t *testing.T, state []byte, pid int) []byte {
	t.Helper()
	var m map[string]any
	must(t, json.Unmarshal(state, &m))
	m["init_process_pid"] = pid
	out, err := json.Marshal(m)
	must(t, err)
	return out
}
