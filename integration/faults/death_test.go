// SPDX-License-Identifier: Apache-2.0

package faults

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/io-mig/mig/integration/internal/daemon"
)

// kills is how often a test kills something at a random moment. MIG_KILLS sets
// another number.
func kills(t *testing.T, usual int) int {
	t.Helper()
	if text := os.Getenv("MIG_KILLS"); text != "" {
		n, err := strconv.Atoi(text)
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	return usual
}

// during runs do a random time after the shim has started an engine, at most
// span, and reports the engine's pid, 0 if there was none. It gives up at the
// end of what is under way.
func during(shim int, span time.Duration, over <-chan struct{}, do func(engine int)) <-chan int {
	found := make(chan int, 1)
	go func() {
		for {
			if pid := engineOf(shim); pid != 0 {
				time.Sleep(rand.N(span))
				do(pid)
				found <- pid
				return
			}
			select {
			case <-over:
				found <- 0
				return
			case <-time.After(200 * time.Microsecond):
			}
		}
	}()
	return found
}

// interrupted is a checkpoint during which something happens.
func (v *victim) interrupted(dir string, span time.Duration, do func(engine int), flags ...string) (daemon.Result, int) {
	v.t.Helper()
	over := make(chan struct{})
	found := during(v.shim(), span, over, do)
	result := v.checkpoint(dir, flags...)
	close(over)
	return result, <-found
}

// wholeOrNone asserts that a directory has an image only if it is a whole one:
// an engine that is killed as it publishes its files leaves those, but the
// manifest that makes them an image comes last.
func (h *host) wholeOrNone(t *testing.T, dir string) {
	t.Helper()
	out, err := command(t.Context(), h.Tree.Bin("mig"), "verify", dir)
	if err != nil && !strings.Contains(out, "no image is there") && !strings.Contains(out, "no such file") {
		t.Errorf("half an image is left: %s", out)
	}
}

// usual is about how long an engine takes here: a third of what ctr takes, when
// nothing holds it up.
func (v *victim) usual() time.Duration {
	v.t.Helper()
	shortest := time.Hour
	for range 3 {
		result := v.checkpoint(filepath.Join(v.t.TempDir(), "image"))
		if err := result.Err(); err != nil {
			v.t.Fatal(err)
		}
		shortest = min(shortest, result.Took)
	}
	return shortest / 3
}

// The engine is killed at any moment: the container goes on as if nothing had
// happened, and no half image is left.
func TestEngineKilledDuringCheckpoint(t *testing.T) {
	h := startHost(t, daemon.V24)
	v := h.run(t, "victim", 8, "")
	span := v.usual()
	died := 0
	n := kills(t, 200)
	for i := range n {
		dir := filepath.Join(t.TempDir(), "image")
		result, _ := v.interrupted(dir, span, func(engine int) { kill(t, engine) })
		if result.Code != 0 {
			died++
			if !strings.Contains(result.Stderr, "engine process died") || !strings.Contains(result.Stderr, "killed") {
				t.Fatalf("kill %d: ctr says %s", i, result.Stderr)
			}
			h.wholeOrNone(t, dir)
		}
		if i%10 == 0 { // asking ctr takes longer than all the rest
			if got := v.status(); got != "RUNNING" {
				t.Fatalf("kill %d: it is %s", i, got)
			}
		}
		if _, err := v.lives(); err != nil {
			t.Fatalf("kill %d: %v", i, err)
		}
		os.RemoveAll(dir)
	}
	t.Logf("%d of %d checkpoints were killed, the others were done already", died, n)
	if died < n/4 {
		t.Errorf("only %d of %d engines died in the middle: the test proves little", died, n)
	}
	dir := filepath.Join(t.TempDir(), "image")
	if err := v.checkpoint(dir).Err(); err != nil {
		t.Errorf("afterwards: %v", err)
	}
	v.runsOn("all of it")
	v.remove()
	restored, err := h.restore(t, "restored", dir)
	if err != nil {
		t.Fatal(err)
	}
	restored.mustLive("after a restore of the last image")
	restored.remove()
}

// A paused container stays paused, whatever becomes of the engine.
func TestEngineKilledDuringCheckpointOfPaused(t *testing.T) {
	h := startHost(t, daemon.V24)
	v := h.run(t, "victim", 8, "")
	span := v.usual()
	h.Must(t, "tasks", "pause", v.id)
	for i := range kills(t, 30) {
		dir := filepath.Join(t.TempDir(), "image")
		v.interrupted(dir, span, func(engine int) { kill(t, engine) })
		v.await("PAUSED")
		before, err := v.beat()
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(30 * time.Millisecond)
		if after, err := v.beat(); err != nil || after.beats != before.beats {
			t.Fatalf("kill %d: it runs although it is paused: %v, %v, %v", i, before, after, err)
		}
	}
	h.Must(t, "tasks", "resume", v.id)
	v.runsOn("all of it")
	v.remove()
}

// During a restore the engine's death takes the half-made container with it.
func TestEngineKilledDuringRestore(t *testing.T) {
	h := startHost(t, daemon.V24)
	image := golden(t, h)
	died := 0
	n := kills(t, 40)
	for i := range n {
		v := &victim{t: t, host: h, id: fmt.Sprint("restored", i)}
		if err := v.make(4, "", image); err != nil {
			t.Fatal(err)
		}
		over := make(chan struct{})
		found := during(v.shim(), 60*time.Millisecond, over, func(engine int) { kill(t, engine) })
		err := v.start()
		close(over)
		<-found
		if err == nil {
			v.mustLive("after a restore whose engine was killed too late")
			v.remove()
			continue
		}
		died++
		if !strings.Contains(err.Error(), "engine") {
			t.Errorf("kill %d: the error is %v", i, err)
		}
		v.gone("the engine's death")
	}
	t.Logf("%d of %d restores were killed", died, n)
	if died < n/4 {
		t.Errorf("only %d of %d engines died in the middle: the test proves little", died, n)
	}
}

// The shim's death takes the container with it, as that of runc's does, and
// containerd cleans up all of it, the engine included.
func TestShimKilledDuringCheckpoint(t *testing.T) {
	for _, version := range daemon.Versions {
		t.Run("containerd-"+string(version), func(t *testing.T) {
			h := startHost(t, version)
			span := 60 * time.Millisecond
			for i := range kills(t, 8) {
				v := h.run(t, fmt.Sprint("victim", i), 8, "")
				shim := v.shim()
				dir := filepath.Join(t.TempDir(), "image")
				over := make(chan struct{})
				found := during(shim, span, over, func(int) { kill(t, shim) })
				result := v.save(dir)
				close(over)
				engine := <-found
				if engine == 0 {
					t.Fatalf("there was no engine: %v", result.Err())
				}
				v.gone("the shim's death")
				eventually(t, "the engine's end", func() bool { return !alive(engine) })
				h.wholeOrNone(t, dir)
			}
		})
	}
}

// save is checkpoint for both containerds: the ctr of 1.6 passes no path on.
func (v *victim) save(dir string) daemon.Result {
	if v.host.Version == daemon.V16 {
		return v.host.checkpoint(v.t, "tasks", "checkpoint", v.id)
	}
	return v.checkpoint(dir)
}

func TestShimKilledDuringRestore(t *testing.T) {
	h := startHost(t, daemon.V24)
	image := golden(t, h)
	for i := range kills(t, 12) {
		v := &victim{t: t, host: h, id: fmt.Sprint("restored", i)}
		if err := v.make(4, "", image); err != nil {
			t.Fatal(err)
		}
		shim := v.shim()
		over := make(chan struct{})
		found := during(shim, 60*time.Millisecond, over, func(int) { kill(t, shim) })
		err := v.start()
		close(over)
		engine := <-found
		if engine == 0 {
			t.Fatalf("there was no engine: %v", err)
		}
		v.gone("the shim's death")
		eventually(t, "the engine's end", func() bool { return !alive(engine) })
	}
}

// The container is killed, or exits, in the middle.
func TestContainerKilledDuringCheckpoint(t *testing.T) {
	h := startHost(t, daemon.V24)
	var ended int
	n := kills(t, 20)
	for i := range n {
		v := h.run(t, fmt.Sprint("victim", i), 8, "")
		dir := filepath.Join(t.TempDir(), "image")
		result, _ := v.interrupted(dir, 40*time.Millisecond, func(int) { kill(t, v.pid) })
		if result.Code != 0 {
			ended++
			empty(t, dir)
			for _, word := range []string{"panic", "died without"} {
				if strings.Contains(result.Stderr, word) {
					t.Errorf("ctr says %s", result.Stderr)
				}
			}
		}
		v.gone("its own death")
	}
	t.Logf("%d of %d containers died in the middle", ended, n)
	if ended == 0 {
		t.Error("none died in the middle: the test proves nothing")
	}
	noPanic(t, h)
}

func TestContainerExitsDuringCheckpoint(t *testing.T) {
	h := startHost(t, daemon.V24)
	for i := range kills(t, 10) {
		v := h.run(t, fmt.Sprint("victim", i), 8, "")
		dir := filepath.Join(t.TempDir(), "image")
		result, engine := v.interrupted(dir, 20*time.Millisecond, func(int) {
			if err := os.WriteFile(v.root("exit"), nil, 0o600); err != nil {
				t.Error(err)
			}
		})
		if engine == 0 {
			t.Fatalf("there was no engine: %v", result.Err())
		}
		v.await("STOPPED")
		if deleted := h.Must(t, "tasks", "delete", v.id); !strings.Contains(deleted.Stderr, "exit code 7") {
			t.Errorf("ctr says %s, want exit code 7", deleted.Stderr)
		}
		if result.Code != 0 {
			empty(t, dir)
		} else {
			h.wholeOrNone(t, dir)
		}
		v.gone("its exit")
	}
	noPanic(t, h)
}

// containerd is killed and comes back: the container is unharmed, and the next
// checkpoint works. ctr pauses a container around its call and cannot resume it
// without a daemon: whoever runs ctr has to, as with any runtime.
func TestDaemonKilledDuringCheckpoint(t *testing.T) {
	for _, version := range daemon.Versions {
		t.Run("containerd-"+string(version), func(t *testing.T) {
			h := startHost(t, version)
			v := h.run(t, "victim", 8, "")
			for range kills(t, 3) {
				dir := filepath.Join(t.TempDir(), "image")
				over := make(chan struct{})
				found := during(v.shim(), 30*time.Millisecond, over, func(int) { kill(t, h.Pid()) })
				v.save(dir)
				close(over)
				if <-found == 0 {
					t.Fatal("there was no engine")
				}
				if err := h.Restart(t.Context(), syscall.SIGKILL); err != nil {
					t.Fatal(err)
				}
				v.undone()
				v.await("PAUSED", "RUNNING")
				if v.status() == "PAUSED" {
					h.Must(t, "tasks", "resume", v.id)
				}
				v.mustLive("after the daemon's death")
				removeTemporary(t, h)
				if err := v.save(filepath.Join(t.TempDir(), "again")).Err(); err != nil {
					t.Errorf("a checkpoint afterwards: %v", err)
				}
				v.runsOn("it")
			}
			v.remove()
		})
	}
}

// undone waits until the newest request has ended, and asserts that the engine has put
// everything back if it failed.
func (v *victim) undone() {
	v.t.Helper()
	var last requestStatus
	for end := time.Now().Add(time.Minute); ; time.Sleep(10 * time.Millisecond) {
		last = v.host.requests(v.t)[0]
		if final := last.Phase == "succeeded" || last.Phase == "failed" || last.Phase == "canceled"; final {
			break
		}
		if time.Now().After(end) {
			v.t.Fatalf("a checkpoint whose client has died does not end: %+v", last)
		}
	}
	if last.Failure == nil {
		return
	}
	if last.Failure.End == "failed" {
		v.t.Errorf("the checkpoint was not undone: %s", last.Failure.Text)
	}
	if pid := engineOf(v.shim()); pid != 0 {
		v.t.Errorf("the checkpoint has failed, and its engine, pid %d, is there", pid)
	}
}

// removeTemporary removes the directory that a daemon which was killed has left.
func removeTemporary(t *testing.T, h *host) {
	t.Helper()
	left, _ := filepath.Glob(filepath.Join(h.Dir, "tmp", "ct*-checkpoint*"))
	for _, dir := range left {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	}
}

// mig abort in the middle: the container runs on.
func TestAbort(t *testing.T) {
	h := startHost(t, daemon.V24)
	v := h.run(t, "victim", 256, "")
	dir := filepath.Join(t.TempDir(), "image")
	aborted := make(chan error, 1)
	over := make(chan struct{})
	found := during(v.shim(), time.Millisecond, over, func(int) { aborted <- h.abortNewest() })
	result := v.checkpoint(dir)
	close(over)
	if <-found == 0 {
		t.Fatal("there was no engine")
	}
	err := <-aborted
	v.runsOn("an abort")
	if result.Code == 0 {
		t.Skipf("the checkpoint was done before it could be aborted: %v", err)
	}
	if err != nil || !strings.Contains(result.Stderr, "cancel") {
		t.Errorf("mig abort says %v, ctr %s", err, result.Stderr)
	}
	empty(t, dir)
	if last := h.requests(t)[0]; last.Phase != "canceled" {
		t.Errorf("mig status says %s", last.Phase)
	}
	v.remove()
}

// Programs that never stand still are checkpointed all the same.
func TestRestlessPrograms(t *testing.T) {
	h := startHost(t, daemon.V24)
	for _, mode := range []string{"threads", "forks"} {
		t.Run(mode, func(t *testing.T) {
			v := h.run(t, mode, 4, mode)
			var done int
			for i := range 10 {
				result := v.checkpoint(filepath.Join(t.TempDir(), "image"))
				switch {
				case result.Code == 0:
					done++
				case mode == "forks" && strings.Contains(result.Stderr, "process"):
					// Trees are refused; a child may be there at any moment.
				default:
					t.Errorf("checkpoint %d: %s", i, result.Stderr)
				}
				v.runsOn("a checkpoint")
			}
			t.Logf("%d of 10 checkpoints were made", done)
			if mode == "threads" && done < 10 {
				t.Errorf("only %d", done)
			}
			v.remove()
		})
	}
	noPanic(t, h)
}

// abortNewest aborts the request that runs now.
func (h *host) abortNewest() error {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	for ctx.Err() == nil {
		files, _ := filepath.Glob(filepath.Join("/run/mig", h.Namespace, "requests", "*.json"))
		if len(files) == 0 {
			continue
		}
		id := strings.TrimSuffix(filepath.Base(files[len(files)-1]), ".json")
		out, err := command(ctx, h.Tree.Bin("mig"), "abort", "-n", h.Namespace, id)
		if err != nil {
			return fmt.Errorf("%w: %s", err, out)
		}
		return nil
	}
	return ctx.Err()
}
