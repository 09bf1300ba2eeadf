// SPDX-License-Identifier: Apache-2.0

package shim

import (
	"context"
	"fmt"
	"log/slog"
	"path/filepath"
	"strings"
	"time"

	"github.com/containerd/errdefs"

	"github.com/io-mig/mig/layers/request/address"
	"github.com/io-mig/mig/shim/agenthost"
	agentmount "github.com/io-mig/mig/spec/agent/mount"
)

// What an application may ask for by itself: the directory of its images; the
// hosts that it may go to, HOST[:PORT][?OPTIONS] each, with commas between them,
// where the options are those of the address of a move and not the application's.
const (
	agentCheckpoint = "io.mig/agent-checkpoint"
	agentMigrate    = "io.mig/agent-migrate"
)

// openAgent makes the agent of a container that asks for one.
func (s *service) openAgent(t *task, c *creation) error {
	if !agentmount.Wanted(t.spec) {
		return nil
	}
	server, err := agenthost.New(s.agentOptions(t, agentmount.Source(t.bundle)))
	if err != nil {
		return err
	}
	c.add(server.Close)
	t.agent = server
	return nil
}

func (s *service) agentOptions(t *task, dir string) agenthost.Options {
	o := agenthost.Options{Dir: dir, Restored: t.restore != nil}
	if images := t.spec.Annotations[agentCheckpoint]; filepath.IsAbs(images) {
		o.Checkpoint = func(exit bool, failed func(error)) error {
			image := filepath.Join(images, t.id+"-"+time.Now().UTC().Format("20060102-150405.000"))
			return s.beginOwn(t, failed, func(ctx context.Context) error { return s.checkpointItself(ctx, t, image, exit) })
		}
	}
	if hosts := t.spec.Annotations[agentMigrate]; hosts != "" {
		o.Migrate = func(host string, failed func(error)) error {
			to, err := allowedHost(hosts, host)
			if err != nil {
				return err
			}
			return s.beginOwn(t, failed, func(ctx context.Context) error {
				return s.startMove(ctx, t, CheckpointRequest{Image: to, Exit: true})
			})
		}
	}
	return o
}

// allowedHost is the address of a host that the annotation names.
func allowedHost(annotation, host string) (string, error) {
	for entry := range strings.SplitSeq(annotation, ",") {
		if name, _, _ := strings.Cut(entry, "?"); name == host && host != "" {
			return address.MoveScheme + "://" + entry, nil
		}
	}
	return "", fmt.Errorf("the annotation %s does not have the host %q", agentMigrate, host)
}

// beginOwn begins what a container's application has asked for. It goes on when
// its connection has ended.
func (s *service) beginOwn(t *task, failed func(error), do func(context.Context) error) error {
	t.mu.Lock()
	now := t.state
	t.mu.Unlock()
	if now != stateRunning {
		return fmt.Errorf("the task is %s: %w", now, errdefs.ErrFailedPrecondition)
	}
	go func() {
		if err := do(context.Background()); err != nil {
			slog.Error("what the application has asked for failed", "container", t.id, "error", err)
			failed(err)
		}
	}()
	return nil
}

func (s *service) checkpointItself(ctx context.Context, t *task, image string, exit bool) error {
	req, err := t.checkpointRequest(image, nil)
	if err != nil {
		return err
	}
	req.Exit = exit
	return s.checkpointTask(ctx, t, req)
}

// wakeApplication tells the application that its container goes on.
func (t *task) wakeApplication(failed error) {
	if t.agent == nil {
		return
	}
	reason := ""
	if failed != nil {
		reason = failed.Error()
	}
	if err := t.agent.Resume(reason); err != nil {
		slog.Error("the application is not told that its container goes on", "container", t.id, "error", err)
	}
}
