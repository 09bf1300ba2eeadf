// SPDX-License-Identifier: Apache-2.0

package live

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// fault is what happens when a move comes to a step: somebody dies, or the
// destination's cable is taken out.
type fault struct {
	step   string
	victim *victim // nil: the cable
	// out is how long the cable is; 0: until mig migrate has ended, or outForLong.
	out time.Duration
	// after is how long after the step that begins.
	after time.Duration
	// met: it has happened.
	met bool

	file string // with the victim's pid
}

// outForLong is longer than either side waits for the other before COMMIT.
const outForLong = 40 * time.Second

// hello is the step at which mig has connected, and migd does not answer. It is no
// engine's, and only the cable's.
const hello = "hello"

func (f *fault) String() string {
	text := "cable out until the end"
	switch {
	case f.victim != nil:
		text = f.victim.name + " dies"
	case f.out > 0:
		text = fmt.Sprintf("cable out for %s", f.out)
	}
	if f.after > 0 {
		text += fmt.Sprintf(" %s", f.after)
	}
	if f.after > 0 {
		return text + " after " + f.step
	}
	return text + " at " + f.step
}

// orders are those of an engine for tests.
func (f *fault) orders() (lines []string) {
	if f.victim == nil {
		return nil
	}
	if f.file != "" {
		lines = append(lines, f.step+"\t"+f.file)
	}
	if f.victim.engine {
		lines = append(lines, f.step+"\tengine")
	}
	return lines
}

// ordeal is a move, the faults that it meets and what mig migrate says.
type ordeal struct {
	*walk
	from, to *host
	faults   []*fault

	report *report // nil: mig did not live to write one
	err    error
	// lost: nobody can tell whether the copy ran, and the source was freed by force.
	lost bool
	// bereft: the copy could not have its memory any more, and a person has killed what
	// was left of the source.
	bereft bool

	token string
	cmd   *exec.Cmd
	said  bytes.Buffer
	errs  textFile
	done  chan error
	over  bool      // mig migrate is
	cut   time.Time // when the cable is taken out, if it is
	out   bool      // the cable is
	back  time.Time // when it goes in again
}

// suffer moves the container, as flags say, under faults, and returns when mig
// migrate and the engines have ended. Who died lives again, the cable is in, and who
// waited for a person's decision has it.
func (k *walk) suffer(flags []string, faults ...*fault) *ordeal {
	k.t.Helper()
	o := &ordeal{walk: k, from: k.on, to: k.off, faults: faults, token: newToken(), done: make(chan error, 1)}
	o.errs = newTextFile(k.t)
	defer o.errs.Close()
	o.prepare()
	k.turn++
	k.outside.hush(k.turn%2 == 0)
	defer k.outside.hush(false)
	o.begin(flags)
	waitFor(k.t, 2*settleWithin+outForLong, fmt.Sprintf("mig migrate and the engines end, %v", faults), o.ended)
	k.order("", k.on, k.off)
	for _, h := range []*host{k.on, k.off} { // of an engine, too, that was killed as it stopped
		files, _ := filepath.Glob(h.stopFile(k.id) + "*")
		for _, f := range files {
			k.must(os.Remove(f))
		}
	}
	if o.report = (&report{}); json.Unmarshal(o.said.Bytes(), o.report) != nil {
		o.report = nil
	}
	if o.err != nil {
		o.err = fmt.Errorf("%w: %s", o.err, strings.TrimSpace(o.errs.String()))
	}
	return o
}

// prepare tells the engines of both hosts what they are to do.
func (o *ordeal) prepare() {
	o.t.Helper()
	orders := map[*host][]string{}
	for _, f := range o.faults {
		at := hostOf(f.step, o.from, o.to)
		switch {
		case f.victim == nil && f.step != hello:
			o.stopAt(at, o.id, f.step)
		case f.victim == nil:
		case f.victim.pid != nil:
			f.file = f.victim.pid(o.from, o.to)
		case f.victim.know != nil:
			f.file = filepath.Join(o.t.TempDir(), "pid")
		}
		orders[at] = append(orders[at], f.orders()...)
	}
	for _, h := range []*host{o.from, o.to} {
		o.order(strings.Join(orders[h], "\n"), h)
	}
}

// begin starts the move.
func (o *ordeal) begin(flags []string) {
	o.t.Helper()
	o.cmd = o.from.migrate(context.Background(), append(o.flags(flags...), "--token", o.token, o.id, o.to.IP)...)
	o.cmd.Stdout, o.cmd.Stderr = &o.said, o.errs
	start := func() {
		o.must(o.cmd.Start())
		go func() { o.done <- o.cmd.Wait() }()
	}
	if f := o.cableAt(hello); f != nil {
		answer := o.unanswered(o.from, o.to, start)
		o.disconnect(f)
		answer()
	} else {
		start()
	}
	for _, f := range o.faults {
		if f.victim != nil && f.victim.know != nil {
			pid := strconv.Itoa(f.victim.know(o.from, o.to, o.cmd.Process.Pid))
			o.must(errors.Join(os.WriteFile(f.file+".part", []byte(pid), 0o600), os.Rename(f.file+".part", f.file)))
		}
	}
}

func (o *ordeal) cableAt(step string) *fault {
	for _, f := range o.faults {
		if f.victim == nil && f.step == step {
			return f
		}
	}
	return nil
}

// ended sees to what has happened since it was last asked, and whether all is over.
func (o *ordeal) ended() bool {
	o.t.Helper()
	if !o.over {
		select {
		case o.err = <-o.done:
			o.over = true
		default:
		}
	}
	for _, f := range o.faults {
		switch {
		case f.met:
		case f.victim != nil:
			o.dies(f)
		default:
			o.cable(f)
		}
	}
	if o.out && (o.over && o.back.IsZero() || !o.back.IsZero() && time.Now().After(o.back)) {
		o.must(o.to.Connect())
		o.out = false
	}
	o.decide()
	return o.over && !o.out && len(o.from.engines()) == 0 && len(o.to.engines()) == 0 && !o.from.frozen(o.id) && !o.to.frozen(o.id)
}

// dies revives a victim that has died.
func (o *ordeal) dies(f *fault) {
	o.t.Helper()
	b, _ := os.ReadFile(hostOf(f.step, o.from, o.to).d.Engine() + ".met")
	met := strings.Split(string(b), "\n")
	for _, line := range f.orders() {
		if !slices.Contains(met, line) {
			return
		}
	}
	f.met = true
	if f.victim.revive != nil {
		o.must(f.victim.revive(o.world, o.from, o.to))
	}
}

// cable takes the cable out when the engine has stopped for that.
func (o *ordeal) cable(f *fault) {
	o.t.Helper()
	if o.cut.IsZero() {
		pid := hostOf(f.step, o.from, o.to).stoppedEngine(o.id)
		if pid == 0 {
			return
		}
		o.cut = time.Now().Add(f.after)
		defer o.goOn(pid)
	}
	if !time.Now().Before(o.cut) {
		o.disconnect(f)
	}
}

func (o *ordeal) disconnect(f *fault) {
	o.t.Helper()
	o.must(o.to.Disconnect())
	f.met, o.out, o.cut = true, true, time.Now()
	o.back = o.cut.Add(f.out)
	if f.out == 0 {
		o.back = o.cut.Add(outForLong)
	}
}

// died: somebody of this name has.
func (o *ordeal) died(name string) bool {
	return slices.ContainsFunc(o.faults, func(f *fault) bool { return f.met && f.victim != nil && f.victim.name == name })
}

// shimDied: that of the "source" or the "destination" has.
func (o *ordeal) shimDied(side string) bool {
	return slices.ContainsFunc(o.faults, func(f *fault) bool { return f.met && f.victim != nil && f.victim.shimOf == side })
}

// decide does what a person has to where the hosts cannot know.
func (o *ordeal) decide() {
	o.t.Helper()
	if o.out || o.lost || o.bereft || o.shimDied("source") || o.over && !o.from.frozen(o.id) {
		return
	}
	switch {
	case o.journal(o.to, "destination", `"LOST"`):
		o.lost = true
		o.force()
	case o.isBereft() && (o.over || o.died("mig") || strings.Contains(o.errs.String(), "kill "+o.id+" here")):
		// As mig migrate tells. The source's shim may die meanwhile.
		o.bereft = o.from.d.Ctr(o.t.Context(), "tasks", "kill", "--signal", "SIGKILL", o.id).Err() == nil
	}
}

// isBereft: the copy has run and lacks memory that is still here, and an engine is
// dead that would have to bring it or to take it. If the copy's is, it is gone.
func (o *ordeal) isBereft() bool {
	return o.journal(o.from, "source", `"MOVED"`, `"left":true`) && o.journal(o.to, "destination", `"left":true`) &&
		(len(o.from.engines()) == 0 || len(o.to.engines()) == 0) && o.from.frozen(o.id)
}

// journal: that of the move on a host says all of this.
func (o *ordeal) journal(h *host, side string, says ...string) bool {
	b, _ := os.ReadFile(h.Path("/run/mig/journal/" + o.token + "." + side))
	return !slices.ContainsFunc(says, func(text string) bool { return !strings.Contains(string(b), text) })
}

// textFile takes what a program writes, for a reader who does not wait for its end.
type textFile struct{ *os.File }

func newTextFile(t *testing.T) textFile {
	t.Helper()
	f, err := os.CreateTemp(t.TempDir(), "")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return textFile{f}
}

func (f textFile) String() string {
	b, _ := os.ReadFile(f.Name())
	return string(b)
}

// force frees a source that is in doubt, after it was seen to be frozen, and who
// waits for it was told.
func (o *ordeal) force() {
	o.t.Helper()
	waitFor(o.t, settleWithin, "mig migrate says that it is in doubt", func() bool {
		text := o.errs.String()
		return o.died("mig") || strings.Contains(text, "in doubt") && strings.Contains(text, "LOST") && strings.Contains(text, "mig abort --force "+o.token)
	})
	waitFor(o.t, settleWithin, "the copy is gone, and the source frozen", func() bool { return len(o.processes()) == 1 && o.from.frozen(o.id) })
	if st := o.from.status(o.id); st != "PAUSED" {
		o.t.Errorf("in doubt, and frozen, it is %s", st)
	}
	if said := o.from.d.Ctr(o.t.Context(), "tasks", "resume", o.id); said.Code == 0 || !strings.Contains(said.Stderr, "in doubt") {
		o.t.Errorf("ctr resumes it: %+v", said)
	}
	mig := o.from.d.Tree.Bin("mig")
	out, err := o.from.Command(o.t.Context(), mig, "status").CombinedOutput()
	if err != nil {
		o.t.Errorf("mig status: %v: %s", err, out)
	}
	if !strings.Contains(string(out), "in doubt") {
		o.t.Errorf("mig status says %s", out)
	}
	out, err = o.from.Command(o.t.Context(), mig, "abort", "--force", o.token).CombinedOutput()
	if err != nil {
		o.t.Errorf("mig abort --force: %v: %s", err, out)
	}
	o.t.Logf("mig abort --force says %s", out)
}

// engines are the pids of those that run on a host.
func (h *host) engines() (pids []string) {
	files, _ := filepath.Glob("/proc/[0-9]*/exe")
	for _, f := range files {
		if exe, err := os.Readlink(f); err == nil && exe == h.d.Engine() {
			pids = append(pids, filepath.Base(filepath.Dir(f)))
		}
	}
	return pids
}
