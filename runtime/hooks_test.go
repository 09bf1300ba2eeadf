// SPDX-License-Identifier: Apache-2.0

package runtime

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// allHooks writes each hook's kind and the state it was given to a directory.
// Those that run in the container see it as /tmp.
func allHooks(dir string) *specs.Hooks {
	script := func(kind, dir string) *specs.Hooks {
		return hooks(kind, "cat > "+dir+"/"+kind+".json; echo "+kind+" >> "+dir+"/order")
	}
	return &specs.Hooks{
		//lint:ignore SA1019 still in use by clients
		Prestart:        script("prestart", dir).Prestart,
		CreateRuntime:   script("createRuntime", dir).CreateRuntime,
		CreateContainer: script("createContainer", dir).CreateContainer,
		StartContainer:  script("startContainer", "/tmp").StartContainer,
		Poststart:       script("poststart", dir).Poststart,
		Poststop:        script("poststop", dir).Poststop,
	}
}

func TestHooks(t *testing.T) {
	s := newSandbox(t)
	log := filepath.Join(s.bundle, "log")
	must(t, os.MkdirAll(log, 0o777))
	spec := s.spec("hooks", "true")
	spec.Root.Readonly = false
	spec.Annotations = map[string]string{"nerdctl/name": "web"}
	spec.Mounts = append(spec.Mounts, bind(log, "/tmp", "rw"))
	spec.Hooks = allHooks(log)
	c := s.start(s.options("hooks", spec))
	pid := c.Init().Pid()
	waitDone(t, c.Init())
	s.destroy(c)

	order, err := os.ReadFile(filepath.Join(log, "order"))
	must(t, err)
	// poststart before startContainer: libcontainer runs it at the end of
	// "create", and so does runc.
	want(t, "order", strings.Join(strings.Fields(string(order)), " "),
		"prestart createRuntime createContainer poststart startContainer poststop")
	for kind, status := range map[string]specs.ContainerState{
		"createRuntime": specs.StateCreating, "createContainer": specs.StateCreating,
		"startContainer": specs.StateCreated, "poststop": specs.StateStopped,
	} {
		state := readState(t, log, kind)
		want(t, kind+" id", state.ID, "hooks")
		want(t, kind+" status", state.Status, status)
		want(t, kind+" bundle", state.Bundle, s.bundle)
		want(t, kind+" annotation", state.Annotations["nerdctl/name"], "web")
	}
	want(t, "pid for createRuntime", readState(t, log, "createRuntime").Pid, pid)
}

func readState(t *testing.T, dir, kind string) specs.State {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(dir, kind+".json"))
	must(t, err)
	var state specs.State
	must(t, json.Unmarshal(data, &state))
	return state
}

// TestPoststopAfterFailure: what createRuntime did is undone.
func TestPoststopAfterFailure(t *testing.T) {
	s := newSandbox(t)
	spec := s.spec("undo", "/no/such")
	mark := filepath.Join(s.bundle, "undone")
	spec.Hooks = hooks("poststop", "touch "+mark)
	if _, err := Create(t.Context(), s.options("undo", spec)); err == nil {
		t.Fatal("it was created")
	}
	if _, err := os.Stat(mark); err != nil {
		t.Error(err)
	}
}
