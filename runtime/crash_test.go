// SPDX-License-Identifier: Apache-2.0

package runtime

import (
	"context"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// creatorEnv names a file with CreateOptions: this binary then creates and
// starts that container, says so in a file, and waits to be killed.
const creatorEnv = "MIG_TEST_CREATOR"

func createForOthers() error {
	data, err := os.ReadFile(os.Getenv(creatorEnv))
	if err != nil {
		return err
	}
	var o CreateOptions
	if err := json.Unmarshal(data, &o); err != nil {
		return err
	}
	c, err := Create(context.Background(), o)
	if err != nil {
		return err
	}
	if err := c.Start(context.Background()); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(o.Bundle, "started"), nil, 0o600); err != nil {
		return err
	}
	time.Sleep(time.Hour)
	return nil
}

// TestCreatorKilled: kill -9 of the creator in the middle of a hook and after
// the start; Load and Destroy find everything, poststop hooks included.
func TestCreatorKilled(t *testing.T) {
	for name, c := range map[string]struct{ hook, sign string }{
		"in createRuntime":   {"createRuntime", "in-hook"},
		"in createContainer": {"createContainer", "in-hook"},
		"after start":        {"", "started"},
	} {
		t.Run(name, func(t *testing.T) {
			s := newSandbox(t)
			spec := s.spec("orphan", "sleep", "1000")
			spec.Hooks = hooks("poststop", "touch "+filepath.Join(s.bundle, "undone"))
			slow := "touch " + filepath.Join(s.bundle, "in-hook") + "; exec sleep 2"
			switch c.hook {
			case "createRuntime":
				spec.Hooks.CreateRuntime = hooks(c.hook, slow).CreateRuntime
			case "createContainer":
				spec.Hooks.CreateContainer = hooks(c.hook, slow).CreateContainer
			}
			killCreator(t, s, spec, c.sign)

			l, err := Load(s.root, "orphan")
			must(t, err)
			s.destroy(l)
			if _, err := os.Stat(filepath.Join(s.bundle, "undone")); err != nil {
				t.Error("poststop hook:", err)
			}
		})
	}
}

// killCreator starts a creator and kills it when the sign appears.
func killCreator(t *testing.T, s *sandbox, spec *specs.Spec, sign string) {
	t.Helper()
	data, err := json.Marshal(s.options("orphan", spec))
	must(t, err)
	file := filepath.Join(s.bundle, "options.json")
	must(t, os.WriteFile(file, data, 0o600))
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), creatorEnv+"="+file)
	cmd.Stderr = os.Stderr
	release, err := Spawn(func() (int, error) {
		if err := cmd.Start(); err != nil {
			return 0, err
		}
		return cmd.Process.Pid, nil
	})
	must(t, err)
	defer release()
	eventually(t, sign, func() bool {
		_, err := os.Stat(filepath.Join(s.bundle, sign))
		return err == nil
	})
	must(t, cmd.Process.Signal(unix.SIGKILL))
	_ = cmd.Wait() // says that it was killed
}

// TestPod: a second container in the first one's pid and network namespaces.
func TestPod(t *testing.T) {
	s := newSandbox(t)
	first := s.start(s.options("pod-1", s.spec("pod-1", "sleep", "1000")))
	spec := s.spec("pod-2", sh("sleep 1000 & sleep 1000 & ps | grep -c 'sleep 1000$'; exec sleep 1000")...)
	for i := range spec.Linux.Namespaces {
		ns := &spec.Linux.Namespaces[i]
		if file, ok := map[specs.LinuxNamespaceType]string{specs.PIDNamespace: "pid", specs.NetworkNamespace: "net"}[ns.Type]; ok {
			ns.Path = "/proc/" + pidString(first) + "/ns/" + file
		}
	}
	second := s.start(s.options("pod-2", spec))
	eventually(t, "three processes", func() bool {
		pids, err := second.Pids()
		must(t, err)
		return len(pids) == 3
	})
	s.destroy(second)
	want(t, "status", waitDone(t, second.Init()), 137)
	st, err := first.Status()
	must(t, err)
	want(t, "the first goes on", st.State, StateRunning)
	pids, err := first.Pids()
	must(t, err)
	want(t, "its processes", len(pids), 1)
}
