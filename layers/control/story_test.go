// SPDX-License-Identifier: Apache-2.0

package control

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/io-mig/mig/spec/record"
)

var rewrite = flag.Bool("rewrite", false, "write the traces into testdata instead of comparing them")

// TestStories runs the stories of testdata: a story above "----", the trace of
// what an event then does below it. Time is synctest's, so that a story with
// minutes in it takes none and its trace is always the same.
func TestStories(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatalf("no stories: %v", err)
	}
	for _, f := range files {
		t.Run(strings.TrimSuffix(filepath.Base(f), ".txt"), func(t *testing.T) { runFile(t, f) })
	}
}

func runFile(t *testing.T, file string) {
	old, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	for i, block := range strings.Split(strings.TrimRight(string(old), "\n"), "\n\n") {
		if i > 0 {
			out.WriteString("\n")
		}
		story, _, found := strings.Cut(block, "\n----\n")
		story = strings.TrimSuffix(story, "\n----")
		out.WriteString(story + "\n")
		if !found && strings.HasPrefix(story, "#") && !strings.Contains(story, "\nexport") && !strings.Contains(story, "\nimport") {
			continue // a comment of its own
		}
		out.WriteString("----\n")
		synctest.Test(t, func(t *testing.T) { out.WriteString(tell(t, story)) })
	}
	if *rewrite {
		if err := os.WriteFile(file, out.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if got := out.String(); got != string(old) {
		t.Errorf("%s tells another story now (look at it with go test -run Stories -rewrite and git diff):\n%s", file, got)
	}
}

// teller builds a world from a story's lines.
type teller struct {
	w      *world
	subs   []Subsystem
	tune   Tuning
	exp    ExportOptions
	side   string
	dumps  bytes.Buffer
	names  []string
	refuse bool
	// prepared: the import tells when its frame stands.
	prepared, fill bool
	elapsed        bool
}

func tell(t *testing.T, story string) string {
	s := &teller{w: newWorld(1), exp: ExportOptions{Strategy: StopAndCopy}}
	for _, line := range strings.Split(story, "\n") {
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		if err := s.line(strings.Fields(line)); err != nil {
			t.Fatalf("story line %q: %v", line, err)
		}
	}
	if s.side == "" {
		t.Fatalf("a story has a line export or import:\n%s", story)
	}
	return s.run()
}

func (s *teller) line(f []string) error {
	args := f[1:]
	switch f[0] {
	case "processes":
		var ids []record.ProcessID
		for _, a := range args {
			ids = append(ids, record.ProcessID(atoi(a)))
		}
		old := s.w
		s.w = newWorld(ids...)
		s.w.hurts = old.hurts
	case "subsystem":
		sub := &fakeSubsystem{w: s.w, name: args[0], steps: 1}
		for _, a := range args[1:] {
			k, v, _ := strings.Cut(a, "=")
			switch k {
			case "steps":
				sub.steps = atoi(v)
			case "shared":
				sub.shared = atoi(v)
			case "left":
				sub.left = atoi(v)
			case "remaining":
				sub.remaining = uint64(atoi(v))
			case "steady":
				sub.steady = true
			case "concurrent":
				sub.concurrent = true
			case "heals":
				sub.heals = true
			case "idle":
				sub.idle = true
			case "refuses":
				sub.findings = append(sub.findings, record.Finding{Pid: 42, FD: 3, Subsystem: sub.name, What: v, Why: "not supported", Remedy: "close it"})
			case "warns":
				sub.findings = append(sub.findings, record.Finding{FD: -1, Subsystem: sub.name, What: v, Warning: true})
			default:
				return errors.New("unknown " + k)
			}
		}
		s.subs = append(s.subs, sub)
	case "appear": // appear ID HOLD
		s.w.appear[atoi(args[1])] = record.ProcessID(atoi(args[0]))
	case "vanish":
		s.w.vanish[atoi(args[1])] = record.ProcessID(atoi(args[0]))
	case "damage":
		s.w.damaged[atoi(args[0])] = true
	case "hurt": // hurt KIND[=DURATION] NTH NAME...
		kind, d, _ := strings.Cut(args[0], "=")
		h := &hurt{kind: kind, nth: atoi(args[1]), name: strings.Join(args[2:], " "), at: -1}
		if d != "" {
			var err error
			if h.d, err = time.ParseDuration(d); err != nil {
				return err
			}
		}
		s.w.hurts = append(s.w.hurts, h)
	case "workers":
		s.tune.Workers = atoi(args[0])
	case "strategy":
		var err error
		s.exp.Strategy, err = StrategyByName(args[0])
		return err
	case "leave":
		s.exp.Leave = true
	case "switch":
		s.exp.Switch = s.verdict(args[0])
	case "prepare":
		s.exp.Prepare = func(ctx context.Context) error { return s.w.call(ctx, "prepare", nil) }
	case "agent":
		s.exp.Quiesce, s.exp.Wake = s.w.quiesce, s.w.wake
	case "slower": // slower TIMES, after the strategy
		s.exp.Strategy.Slower = atoi(args[0])
		s.exp.Slow = func(ctx context.Context, step int) error {
			return s.w.call(ctx, fmt.Sprintf("slow %d", step), nil)
		}
	case "drain":
		s.exp.Drain = func(ctx context.Context) error { return s.w.call(ctx, "drain", nil) }
	case "fill":
		s.fill = true
	case "prepared":
		s.prepared = true
	case "failing":
		s.tune.Failing = func(ctx context.Context, cause error) { _ = s.w.call(ctx, "tell: "+cause.Error(), nil) }
	case "manifest":
		s.names = args
	case "refused":
		s.refuse = true
	case "export", "import":
		s.side = f[0]
		s.elapsed = len(args) > 0 && args[0] == "timed"
	default:
		return errors.New("unknown verb")
	}
	return nil
}

func (s *teller) verdict(name string) func(context.Context) (Verdict, error) {
	return func(ctx context.Context) (Verdict, error) {
		v := map[string]Verdict{"abort": VerdictAbort, "commit": VerdictCommit, "doubt": VerdictDoubt}[name]
		err := s.w.call(ctx, "switch", func() error { s.w.committed = v != VerdictAbort; return nil })
		return v, err
	}
}

func (s *teller) run() string {
	begun := time.Now()
	ctx, cancel := context.WithCancelCause(context.Background())
	defer cancel(nil)
	w := s.w
	w.quit = cancel
	s.tune.Observer = func(tr Transition) { w.note("%s", strings.ToUpper(tr.To.String())) }
	s.tune.Report = &s.dumps
	var res Result
	var err error
	if s.side == "export" {
		s.exp.Tuning, s.exp.Container, s.exp.Medium, s.exp.Subsystems = s.tune, w, w, s.subs
		res, err = Export(ctx, s.exp)
	} else {
		res, err = s.runImport(ctx)
	}
	close(w.over)
	synctest.Wait()
	var b strings.Builder
	if s.tune.Workers > 1 {
		sortWithinStates(w.trace)
	}
	for _, l := range w.trace {
		if upper := strings.ToUpper(l) == l; !upper {
			l = "  " + l
		}
		b.WriteString(l + "\n")
	}
	for _, l := range res.Warnings {
		b.WriteString("warning: " + l + "\n")
	}
	fmt.Fprintf(&b, "result: %s\n", oneLine(err))
	if s.dumps.Len() > 0 {
		fmt.Fprintf(&b, "dumps: %d\n", strings.Count(s.dumps.String(), "--- "))
	}
	if s.elapsed {
		fmt.Fprintf(&b, "took: %s, silent %s\n", time.Since(begun), res.Downtime)
	}
	b.WriteString("truth: " + w.truth() + "\n")
	for _, v := range w.violations {
		b.WriteString("VIOLATION: " + v + "\n")
	}
	return b.String()
}

// runImport exports the story's subsystems into the medium first, unhurt and
// untraced, and imports what they gave.
func (s *teller) runImport(ctx context.Context) (Result, error) {
	w := s.w
	hurts := w.hurts
	w.hurts = nil
	o := s.exp
	o.Tuning, o.Container, o.Medium, o.Subsystems = Tuning{}, w, w, s.subs
	if _, err := Export(context.Background(), o); err != nil {
		return Result{}, fmt.Errorf("the story's export: %w", err)
	}
	w.reset()
	w.hurts = hurts
	i := ImportOptions{Tuning: s.tune, Container: w, Medium: w, Subsystems: s.subs}
	if s.names != nil {
		i.Manifest = func(ctx context.Context) ([]string, error) { return s.names, w.call(ctx, "manifest", nil) }
	}
	if s.fill {
		i.Fill = func(ctx context.Context) error { return w.call(ctx, "fill", nil) }
	}
	if s.prepared {
		i.Prepared = func(ctx context.Context) error { return w.call(ctx, "tell prepared", nil) }
	}
	i.Ready = func(ctx context.Context) error {
		if err := w.call(ctx, "ready", nil); err != nil || !s.refuse {
			return err
		}
		return errors.New("the source aborted")
	}
	i.Running = func(ctx context.Context) error { return w.call(ctx, "tell running", nil) }
	return Import(ctx, i)
}

// reset turns the world into a destination with a frame and a full medium.
func (w *world) reset() {
	w.trace, w.calls, w.closed, w.holds, w.committed = nil, 0, 0, 0, false
	clear(w.tally)
	clear(w.appear)
	for id := range w.tasks {
		w.tasks[id] = frame
	}
	w.frozen, w.sealed, w.ran = false, false, false
	w.violations, w.dest = nil, true
}

// sortWithinStates makes the trace of several workers the same each time.
func sortWithinStates(trace []string) {
	from := 0
	for i, l := range trace {
		if strings.ToUpper(l) == l {
			slices.Sort(trace[from:i])
			from = i + 1
		}
	}
	slices.Sort(trace[from:])
}

// oneLine is an error without the stacks of panics.
func oneLine(err error) string {
	if err == nil {
		return "ok"
	}
	s := err.Error()
	for {
		i := strings.Index(s, "\ngoroutine ")
		if i < 0 {
			break
		}
		j := strings.Index(s[i:], "; ")
		if j < 0 {
			s = s[:i]
			break
		}
		s = s[:i] + s[i+j:]
	}
	return strings.ReplaceAll(s, "\n", " | ")
}

func atoi(s string) int {
	n, err := strconv.Atoi(s)
	if err != nil {
		panic(err)
	}
	return n
}
