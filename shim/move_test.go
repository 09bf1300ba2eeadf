// SPDX-License-Identifier: Apache-2.0

package shim

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	taskapi "github.com/containerd/containerd/api/runtime/task/v2"
	"github.com/containerd/containerd/api/types/runc/options"
	tasktypes "github.com/containerd/containerd/api/types/task"
	"github.com/containerd/errdefs"

	"github.com/io-mig/mig/layers/request/address"
	"github.com/io-mig/mig/spec/wire"
)

func (f *fixture) moveTo(image string, exit bool) error {
	opts, err := marshalAny(&options.CheckpointOptions{Exit: exit})
	f.must(err)
	_, err = f.s.Checkpoint(context.Background(), &taskapi.CheckpointTaskRequest{ID: "web", Path: image, Options: opts})
	return err
}

// TestMoveWithoutToken: the coordinator is started, the task is held by nobody
// while it works, and it comes back with a token.
func TestMoveWithoutToken(t *testing.T) {
	var f *fixture
	var request CheckpointRequest
	m := &fakeMigrator{checkpoint: func(r CheckpointRequest) error {
		request = r
		f.container.init.exit(137)
		return nil
	}}
	f = newFixture(t, m)
	f.must(f.create(""))
	f.must(f.start(""))
	agreed := address.Move{Host: "b.example:7117", Token: wire.NewToken(), Insecure: true}
	f.s.coordinate = func(_ context.Context, id, image string) error {
		if id != "web" || image != "mig://b.example:7117" {
			t.Errorf("the coordinator is asked to move %s to %s", id, image)
		}
		f.wantStatus(tasktypes.Status_RUNNING)
		return f.moveTo(agreed.String(), true)
	}
	f.must(f.pause()) // as the client does
	f.must(f.moveTo("mig://b.example:7117", true))
	f.wantStatus(tasktypes.Status_STOPPED)
	if request.Image != agreed.String() || !request.Exit || request.Paused {
		t.Errorf("request %+v", request)
	}

	// A client that pauses and names a token itself.
	f = newFixture(t, m)
	f.must(f.create(""))
	f.must(f.start(""))
	f.must(f.pause())
	request = CheckpointRequest{}
	f.must(f.moveTo(agreed.String(), true))
	if request.Image != agreed.String() || request.Paused {
		t.Errorf("request %+v", request)
	}
}

func TestMoveIsRefused(t *testing.T) {
	f := newFixture(t, &fakeMigrator{})
	f.must(f.create(""))
	f.must(f.start(""))
	f.s.coordinate = func(context.Context, string, string) error { return errors.New("no room at b") }
	if err := f.moveTo("mig://b", false); !errdefs.IsInvalidArgument(err) {
		t.Errorf("without exit: %v", err)
	}
	if err := f.moveTo("mig://b?speed=9", true); !errdefs.IsInvalidArgument(err) {
		t.Errorf("an unknown option: %v", err)
	}
	if err := f.moveTo("mig://b", true); err == nil || !strings.Contains(err.Error(), "no room at b") {
		t.Errorf("the coordinator's error: %v", err)
	}
	f.wantStatus(tasktypes.Status_RUNNING)
	// A person's pause stays.
	f.must(f.pause())
	f.s.tasks["web"].pausedAt = time.Now().Add(-time.Minute)
	if err := f.moveTo("mig://b", true); !errdefs.IsFailedPrecondition(err) {
		t.Errorf("paused: %v", err)
	}
	f.wantStatus(tasktypes.Status_PAUSED)
}

// TestCoordinatorIsFound: the program is run with what it needs, and its words
// come back.
func TestCoordinatorIsFound(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("PATH", dir)
	f := newFixture(t, nil)
	f.s.daemon = "/run/x.sock"
	if err := f.s.runCoordinator(context.Background(), "web", "mig://b"); err == nil || !strings.Contains(err.Error(), "install it") {
		t.Errorf("no program: %v", err)
	}
	script := "#!/bin/sh\necho \"$@ $CONTAINERD_ADDRESS $CONTAINERD_NAMESPACE\" >" + dir + "/said\n[ \"$5\" != bad ] || { echo no such container >&2; exit 3; }\n"
	f.must(os.WriteFile(filepath.Join(dir, "mig"), []byte(script), 0o700))
	f.must(f.s.runCoordinator(context.Background(), "web", "mig://b"))
	said, err := os.ReadFile(filepath.Join(dir, "said"))
	if err != nil || strings.TrimSpace(string(said)) != "migrate --json --namespace ns web mig://b /run/x.sock ns" {
		t.Errorf("%q, %v", said, err)
	}
	if err := f.s.runCoordinator(context.Background(), "bad", "mig://b"); err == nil || !strings.Contains(err.Error(), "no such container") {
		t.Errorf("its failure: %v", err)
	}
}

// TestIncoming: a container with the annotation becomes a frame that is filled
// by a move.
func TestIncoming(t *testing.T) {
	m := &fakeMigrator{run: func() error { return nil }}
	f := newFixture(t, m)
	annotate := func(annotations string) {
		config := fmt.Sprintf(`{"ociVersion":"1.0.2","annotations":{%s},"linux":{"cgroupsPath":"/ns/web","namespaces":[{"type":"pid"}]}}`, annotations)
		f.must(os.WriteFile(filepath.Join(f.bundle, "config.json"), []byte(config), 0o600))
	}
	socket := "/run/migd/incoming/" + wire.NewToken().String() + ".sock"
	for _, bad := range []string{
		`"io.mig/incoming":"` + socket + `"`,
		`"io.mig/incoming":"relative.sock","io.mig/insecure":"true"`,
		`"io.mig/incoming":"` + socket + `","io.mig/insecure":"true","io.mig/tls":"/x"`,
	} {
		annotate(bad)
		if err := f.create(""); !errdefs.IsInvalidArgument(err) {
			t.Errorf("%s: %v", bad, err)
		}
	}
	annotate(`"io.mig/incoming":"` + socket + `","io.mig/tls":"/etc/mig/tls","io.mig/from":"alpha"`)
	if err := f.create("/image"); !errdefs.IsInvalidArgument(err) {
		t.Errorf("an image, too: %v", err)
	}
	f.must(f.create(""))
	if f.container.frame == nil {
		t.Error("the container was created without a frame")
	}
	from, err := address.ParseIncoming(m.request.Image)
	if err != nil || from.Socket != socket || from.TLS != "/etc/mig/tls" || from.From != "alpha" {
		t.Errorf("%+v, %v", from, err)
	}
	f.must(f.start(""))
	f.wantStatus(tasktypes.Status_RUNNING)
}
