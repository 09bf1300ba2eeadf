// SPDX-License-Identifier: Apache-2.0

package faults

import (
	"encoding/binary"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/io-mig/mig/integration/internal/daemon"
	"github.com/io-mig/mig/integration/internal/repo"
)

// earlyMegabytes is memory from which on a container that runs on is saved with early
// rounds (layers/engine/imagestrategy.go).
const earlyMegabytes = 64

// migCheckpoint has the shim make a checkpoint that nobody pauses the container for.
func (v *victim) migCheckpoint(dir string) (out string, err error) {
	v.t.Helper()
	return command(v.t.Context(), v.host.Tree.Bin("mig"), "checkpoint", "-n", v.host.Namespace,
		"--containerd", v.host.Address, "--state", v.host.Dir+"/state", v.id, dir)
}

// mustSave makes a checkpoint with early rounds and returns its status.
func (v *victim) mustSave(dir string) requestStatus {
	v.t.Helper()
	if out, err := v.migCheckpoint(dir); err != nil {
		v.t.Fatalf("%v: %s", err, out)
	}
	last := v.host.requests(v.t)[0]
	if last.Progress.Round == 0 {
		v.t.Fatalf("no early round was made: %+v", last)
	}
	return last
}

// seen is what others can see of the victim's memory and descriptors, but for their
// content, and the mappings of engines that have died (package tracer), which the next
// one removes that is two seconds younger.
func (v *victim) seen() (all string, leftovers int) {
	v.t.Helper()
	maps, err := os.ReadFile(fmt.Sprintf("/proc/%d/maps", v.pid))
	if err != nil {
		v.t.Fatal(err)
	}
	memory, err := os.Open(fmt.Sprintf("/proc/%d/mem", v.pid))
	if err != nil {
		v.t.Fatal(err)
	}
	defer memory.Close()
	var dead string // where a dead engine's mapping goes on
	for line := range strings.Lines(string(maps)) {
		start, rest, _ := strings.Cut(line, "-")
		end, rest, _ := strings.Cut(rest, " ")
		switch {
		case strings.HasPrefix(rest, "r-xp 00000000 00:00 0") && engineCode(memory, start):
			leftovers, dead = leftovers+1, end
		case start == dead && strings.HasPrefix(rest, "rw-p"):
			dead = ""
		default:
			all += line
		}
	}
	links, _ := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", v.pid))
	for _, link := range links {
		// Its own files, /beat first of all, are open for moments.
		if to, err := os.Readlink(link); err == nil && !slices.Contains([]string{"/beat", "/measure"}, to) {
			all += filepath.Base(link) + " " + to + "\n"
		}
	}
	return all, leftovers
}

// engineCode tells whether an engine has mapped the executable page at an address: it
// begins with its mark, or it is empty yet, at an address that is chosen for that.
func engineCode(memory *os.File, start string) bool {
	const magic = "mig-scratch-v1\r\n"
	const step, mark = 1 << 28, 0x6d69000
	code := make([]byte, len(magic))
	at, err := strconv.ParseInt(start, 16, 64)
	if err == nil {
		_, err = memory.ReadAt(code, at)
	}
	return err == nil && (string(code) == magic || at%step == mark && string(code) == strings.Repeat("\x00", len(code)))
}

// untouched asserts that nothing of an engine that has died is left in the victim that
// matters: no descriptor or tracer, no mapping but its own (seen) and none whose writes
// are tracked, and no mark on any page.
func (v *victim) untouched(seen string) error {
	v.t.Helper()
	if now, _ := v.seen(); now != seen {
		return fmt.Errorf("its mappings or descriptors were\n%sand are\n%s", seen, now)
	}
	if tracer := v.procStatus("TracerPid"); tracer != "0" {
		return fmt.Errorf("process %s traces it", tracer)
	}
	smaps, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps", v.pid))
	if err != nil {
		return err
	}
	for line := range strings.Lines(string(smaps)) {
		for flag := range strings.FieldsSeq(line) { // of a userfaultfd, proc_pid_smaps(5)
			if strings.HasPrefix(line, "VmFlags:") && slices.Contains([]string{"um", "uw", "ui"}, flag) {
				return fmt.Errorf("a mapping is registered with a userfaultfd: %s", line)
			}
		}
	}
	return v.unmarked(seen)
}

// unmarked looks for pages whose writes are tracked: bit 57 of an entry of
// proc_pid_pagemap(5).
func (v *victim) unmarked(maps string) error {
	f, err := os.Open(fmt.Sprintf("/proc/%d/pagemap", v.pid))
	if err != nil {
		return err
	}
	defer f.Close()
	for line := range strings.Lines(maps) {
		var start, end uint64
		if n, _ := fmt.Sscanf(line, "%x-%x rw-p", &start, &end); n != 2 || strings.Contains(line, "[vsyscall]") {
			continue
		}
		entries := make([]byte, (end-start)/4096*8)
		if _, err := f.ReadAt(entries, int64(start/4096*8)); err != nil && err != io.EOF {
			return err
		}
		for at := 0; at < len(entries); at += 8 {
			if binary.LittleEndian.Uint64(entries[at:])>>57&1 != 0 {
				return fmt.Errorf("page %d of %s is marked", at/8, line)
			}
		}
	}
	return nil
}

// unharmed asserts that a victim has gone on, and has verified every page since.
func (v *victim) unharmed() {
	v.t.Helper()
	first := v.mustLive("it")
	eventually(v.t, "its looking at all of its memory", func() bool { // sixteen pages a beat
		return v.mustLive("it").beats > first.beats+earlyMegabytes<<20/4096/16
	})
}

// survives is a checkpoint whose engine dies: if it did in the middle, mig says so,
// there is no half image, and nothing of it is left in the victim.
func (v *victim) survives(seen, dir, out string, err error) (died bool) {
	v.t.Helper()
	if died = err != nil; died {
		if !strings.Contains(out, "engine process died") || !strings.Contains(out, "killed") {
			v.t.Fatalf("mig says %s", out)
		}
	}
	v.host.wholeOrNone(v.t, dir) // whole: it died between its last file and its last word
	if err := v.untouched(seen); err != nil {
		v.t.Error(err)
	}
	if err := os.RemoveAll(dir); err != nil {
		v.t.Error(err)
	}
	return died
}

// wholeAfterwards ends a test of deaths: the next checkpoint is made with early rounds,
// and its image is the victim.
func (v *victim) wholeAfterwards() {
	v.t.Helper()
	v.unharmed()
	var dir string
	eventually(v.t, "the removal of what dead engines have mapped", func() bool {
		dir = filepath.Join(v.t.TempDir(), "image")
		v.mustSave(dir)
		_, leftovers := v.seen()
		return leftovers == 0
	})
	v.runsOn("all of it")
	v.remove()
	restored, err := v.host.restore(v.t, "restored", dir)
	if err != nil {
		v.t.Fatal(err)
	}
	restored.unharmed()
	restored.remove()
}

// The engine is killed at any moment of the early rounds of a checkpoint of a large
// container, and a little later.
func TestEngineKilledInEarlyRounds(t *testing.T) {
	h := startHost(t, daemon.V24)
	v := h.run(t, "victim", earlyMegabytes, "")
	seen, _ := v.seen()
	span := v.early()
	died, n := 0, kills(t, 40)
	for i := range n {
		dir := filepath.Join(t.TempDir(), "image")
		over := make(chan struct{})
		found := during(v.shim(), span, over, func(engine int) { kill(t, engine) })
		out, err := v.migCheckpoint(dir)
		close(over)
		<-found
		if v.survives(seen, dir, out, err) {
			died++
		}
		if _, err := v.lives(); err != nil || t.Failed() {
			t.Fatalf("kill %d: %v", i, err)
		}
	}
	t.Logf("%d of %d engines died in the middle, at most %s after their start", died, n, span)
	if died < n/2 {
		t.Errorf("only %d of %d engines died in the middle: the test proves little", died, n)
	}
	v.wholeAfterwards()
}

// early is about how long a checkpoint takes until it stops the victim.
func (v *victim) early() time.Duration {
	v.t.Helper()
	shortest := time.Hour
	for range 3 {
		last := v.mustSave(filepath.Join(v.t.TempDir(), "image"))
		for _, p := range last.Progress.Phases {
			if p.State == "holding" {
				shortest = min(shortest, p.At.Sub(last.Created))
			}
		}
	}
	if shortest == time.Hour {
		v.t.Fatal("no checkpoint says when it stopped the victim")
	}
	return shortest
}

// The engine dies at every step of the early rounds, and at those around them.
func TestEngineDiesAtEarlySteps(t *testing.T) {
	tree, err := repo.Find()
	if err != nil {
		t.Fatal(err)
	}
	h := startHostOf(t, daemon.Config{Version: daemon.V24, Engine: tree.Tool("mig-engine-test")})
	v := h.run(t, "victim", earlyMegabytes, "")
	seen, _ := v.seen()
	for _, step := range v.earlySteps() {
		h.order(t, step+"\tengine")
		dir := filepath.Join(t.TempDir(), "image")
		out, err := v.migCheckpoint(dir)
		if _, err := os.Stat(filepath.Join(dir, "mig.manifest")); err == nil {
			t.Errorf("there is an image whose engine died at %q", step)
		}
		if died := v.survives(seen, dir, out, err); !died {
			t.Errorf("no engine died at %q", step)
		}
		if _, err := v.lives(); err != nil || t.Failed() {
			t.Fatalf("death at %q: %v", step, err)
		}
	}
	h.order(t, "")
	v.wholeAfterwards()
}

// earlySteps are the steps of a checkpoint from the first early round until the victim
// is stopped.
func (v *victim) earlySteps() (steps []string) {
	v.t.Helper()
	v.host.order(v.t, "record")
	v.mustSave(filepath.Join(v.t.TempDir(), "image"))
	v.host.order(v.t, "")
	b, err := os.ReadFile(v.host.Engine() + ".steps")
	if err != nil {
		v.t.Fatal(err)
	}
	var rounds int
	for line := range strings.Lines(string(b)) {
		step := strings.TrimSpace(line)
		if !slices.Contains(steps, step) && (step == "checkpoint: early" || len(steps) > 0) {
			steps = append(steps, step)
		}
		if strings.Contains(step, "memory/process 1: early") {
			rounds++
		}
		if step == "checkpoint: holding" {
			break
		}
	}
	v.t.Logf("%d steps, %d of them of the victim's memory: %q", len(steps), rounds, steps)
	if rounds < 2 {
		v.t.Fatal("there are not two early rounds of the victim's memory")
	}
	return steps
}

// order tells the engines of a host what to do at steps (layers/engine/enginetest).
func (h *host) order(t *testing.T, what string) {
	t.Helper()
	if err := os.RemoveAll(h.Engine() + ".met"); err != nil {
		t.Fatal(err)
	}
	err := os.RemoveAll(h.Engine() + ".orders")
	if err == nil && what != "" {
		err = os.WriteFile(h.Engine()+".orders", []byte(what), 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
}
