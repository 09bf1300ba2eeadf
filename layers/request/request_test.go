// SPDX-License-Identifier: Apache-2.0

package request

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/io-mig/mig/layers/control"
	"github.com/io-mig/mig/layers/request/enginepipe"
	"github.com/io-mig/mig/layers/request/job"
	"github.com/io-mig/mig/spec/record"
)

// The test binary is its own engine: TestMain turns into one when the
// supervisor's argv says so.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == "test-engine" {
		if err := enginepipe.Serve(enginepipe.FD, testWork); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		if stays {
			select {}
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// stays is set by a job after which its engine does not exit by itself.
var stays bool

// testWork does what the job's option "do" says.
func testWork(ctx context.Context, j *job.Job, files []*os.File, r job.Reporter) error {
	switch j.Options["do"] {
	case "progress":
		for i := range 5 {
			r.Report(job.Progress{State: "residual", Bytes: uint64(i+1) * 1000, Warnings: []string{"w"}})
			time.Sleep(10 * time.Millisecond)
		}
		return nil
	case "files":
		b, err := io.ReadAll(files[0])
		r.Report(job.Progress{State: string(b)})
		return err
	case "keep", "keep and die":
		drop, err := r.(job.Keeper).Keep(files[0]) // is dropped below
		if err != nil {
			return err
		}
		if _, err := r.(job.Keeper).Keep(files[0]); err != nil {
			return err
		}
		if j.Options["do"] == "keep and die" {
			r.Report(job.Progress{State: "kept"})
			time.Sleep(50 * time.Millisecond) // the messages are on their way
			syscall.Kill(os.Getpid(), syscall.SIGKILL)
			select {}
		}
		return drop()
	case "leave":
		return r.(job.Keeper).Leave(files[0], 300*time.Millisecond)
	case "leave for ever":
		return r.(job.Keeper).Leave(files[0], job.LongestLeft+1)
	case "refuse":
		return fmt.Errorf("export of %s: %w", j.Container, &control.Error{
			Side: control.SideExport, At: control.StatePreflight, End: control.StateRolledBack,
			Cause: &control.PreflightError{Findings: []record.Finding{{Pid: 7, FD: 4, Subsystem: "file", What: "inotify", Why: "no", Remedy: "close it"}}},
		})
	case "fail and stay":
		stays = true
		return errors.New("it has failed")
	case "panic":
		panic("as asked")
	case "exit":
		fmt.Fprintln(os.Stderr, "first line\nlast words")
		os.Exit(3)
	case "kill":
		syscall.Kill(os.Getpid(), syscall.SIGKILL)
		select {}
	case "wait":
		r.Report(job.Progress{State: "waiting"})
		<-ctx.Done()
		mark(j, "cancelled: "+context.Cause(ctx).Error())
		return ctx.Err()
	case "doubt":
		r.Report(job.Progress{State: "deciding", Doubt: &job.Doubt{Since: time.Now(), Destination: "beta", Answer: "READY"}})
		<-ctx.Done()
		r.Report(job.Progress{State: "rolled back"})
		return ctx.Err()
	case "decided", "decided and deaf":
		r.(job.Decider).Decided(func() uint64 { return uint64(time.Now().UnixNano()) })
		r.Report(job.Progress{State: "waiting"})
		<-ctx.Done()
		if j.Options["do"] == "decided and deaf" {
			select {}
		}
		for range 100 { // ten times as long as the grace
			r.Report(job.Progress{State: "left"})
			time.Sleep(30 * time.Millisecond)
		}
		return nil
	case "deaf":
		r.Report(job.Progress{State: "waiting"})
		select {}
	case "chatty":
		fmt.Print(strings.Repeat("x", MaxLog+1000))
		return nil
	}
	return errors.New("what shall I do?")
}

// mark leaves a word for a test that has outlived its supervisor.
func mark(j *job.Job, s string) {
	if f := j.Options["mark"]; f != "" {
		os.WriteFile(f+".tmp", []byte(s), 0o600)
		os.Rename(f+".tmp", f)
	}
}

func testJob(do string) job.Job {
	return job.Job{Kind: job.Checkpoint, Container: "web", Image: "/img", InitPid: 1,
		Stdio: [3]job.Stream{{File: -1}, {File: -1}, {File: -1}}, Options: map[string]string{"do": do}}
}

func testEngine(t *testing.T) *ProcessEngine {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	return &ProcessEngine{Argv: []string{exe, "test-engine"}, Grace: 300 * time.Millisecond,
		Log: func(*job.Job) string { return filepath.Join(dir, "log") }}
}

func testManager(t *testing.T, e Engine) *Manager {
	t.Helper()
	m, err := NewManager(Options{Dir: t.TempDir(), Namespace: "test", Engine: e, Keep: 3, Every: time.Millisecond, Warn: func(err error) { t.Error(err) }})
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func do(t *testing.T, m *Manager, j job.Job, files ...*os.File) (*Status, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	h, err := m.Submit(ctx, j, files...)
	if err != nil {
		t.Fatal(err)
	}
	err = h.Wait(ctx)
	st, rerr := m.Store().Read(h.ID())
	if rerr != nil {
		t.Fatal(rerr)
	}
	return st, err
}

func TestSuccess(t *testing.T) {
	m := testManager(t, testEngine(t))
	st, err := do(t, m, testJob("progress"))
	if err != nil {
		t.Fatal(err)
	}
	if st.Phase != Succeeded || st.Progress.Bytes != 5000 || st.Ended == nil || st.Started == nil || len(st.Token) != 32 ||
		st.Strategy != "auto" || st.Failure != nil || st.Engine == 0 {
		t.Errorf("status %+v", st)
	}
	fi, err := os.Stat(m.store.file(st.ID))
	if err != nil || fi.Mode().Perm() != 0o600 {
		t.Errorf("the status is %v, %v", fi.Mode(), err)
	}
}

func TestFilesTravel(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	io.WriteString(w, "through the pipe")
	w.Close()
	j := testJob("files")
	j.Files = []string{"frame"}
	h, err := testManager(t, testEngine(t)).Submit(context.Background(), j, r)
	r.Close()
	if err != nil {
		t.Fatal(err)
	}
	if err := h.Wait(context.Background()); err != nil {
		t.Fatal(err)
	}
	if got := h.Status().Progress.State; got != "through the pipe" {
		t.Errorf("the engine read %q", got)
	}
}

// TestErrorsCrossWhole looks at an error of the engine as its supervisor and a
// reader of the status see it.
func TestErrorsCrossWhole(t *testing.T) {
	st, err := do(t, testManager(t, testEngine(t)), testJob("refuse"))
	var refused *control.PreflightError
	if !errors.As(err, &refused) || len(refused.Findings) != 1 || refused.Findings[0].Pid != 7 || !errors.Is(err, errors.ErrUnsupported) {
		t.Errorf("error %v", err)
	}
	f := st.Failure
	if st.Phase != Failed || f.Kind != job.Refused || f.End != "rolled back" || f.At != "preflight" || len(f.Chain) < 2 || f.Findings[0].Remedy != "close it" {
		t.Errorf("failure %+v", f)
	}
	if !strings.Contains(f.Text, "web") || !strings.Contains(f.Text, "file: pid 7: fd 4: inotify: no (close it)") {
		t.Errorf("text %q", f.Text)
	}
}

func TestPanic(t *testing.T) {
	st, err := do(t, testManager(t, testEngine(t)), testJob("panic"))
	if err == nil || st.Failure.Kind != job.Panicked || !strings.Contains(st.Failure.Text, "as asked") || !strings.Contains(st.Failure.Text, "testWork") {
		t.Errorf("%v, %+v", err, st.Failure)
	}
}

func TestEngineDies(t *testing.T) {
	for what, want := range map[string]string{"exit": "exit status 3", "kill": "signal: killed"} {
		st, err := do(t, testManager(t, testEngine(t)), testJob(what))
		var died *EngineDiedError
		if !errors.As(err, &died) || died.Killed || !strings.Contains(err.Error(), want) || st.Failure.Kind != job.Died {
			t.Errorf("%s: %v, %+v", what, err, st.Failure)
		}
		if what == "exit" && !strings.HasSuffix(err.Error(), "last words") {
			t.Errorf("the last words are missing: %v", err)
		}
	}
}

func TestNoEngine(t *testing.T) {
	m := testManager(t, &ProcessEngine{Argv: []string{"/nonexistent"}})
	if _, err := m.Submit(context.Background(), testJob("wait")); err == nil {
		t.Error("an engine that does not exist was started")
	}
	if _, busy := m.Active("web"); busy {
		t.Error("the container stays busy")
	}
	all, err := m.Store().List()
	if err != nil || len(all) != 1 || all[0].Phase != Failed {
		t.Errorf("%v, %v", all, err)
	}
}

// waiting submits a job that waits and returns when it does.
func waiting(t *testing.T, m *Manager, j job.Job) *Handle {
	t.Helper()
	h, err := m.Submit(context.Background(), j)
	if err != nil {
		t.Fatal(err)
	}
	for range 3000 {
		st, err := m.Store().Read(h.ID()) // as another process would
		if err == nil && st.Progress.State == "waiting" {
			return h
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Fatal("the job does not wait")
	return nil
}

func TestCancel(t *testing.T) {
	m := testManager(t, testEngine(t))
	h := waiting(t, m, testJob("wait"))
	if _, err := m.Submit(context.Background(), testJob("wait")); !errors.Is(err, ErrBusy) || !strings.Contains(err.Error(), h.ID()) {
		t.Errorf("a second request of one container: %v", err)
	}
	if err := m.Cancel(h.ID()); err != nil {
		t.Fatal(err)
	}
	if err := h.Wait(context.Background()); !errors.Is(err, context.Canceled) {
		t.Errorf("outcome %v", err)
	}
	if st := h.Status(); st.Phase != Canceled || st.Failure.Kind != job.Canceled {
		t.Errorf("status %+v", st)
	}
	if err := m.Cancel(h.ID()); err == nil {
		t.Error("an ended request was cancelled")
	}
}

func TestDeafEngineIsKilled(t *testing.T) {
	h := waiting(t, testManager(t, testEngine(t)), testJob("deaf"))
	h.Cancel()
	var died *EngineDiedError
	if err := h.Wait(context.Background()); !errors.As(err, &died) || !died.Killed {
		t.Errorf("outcome %v", err)
	}
}

// TestDecidedEngineGoesOn: what cannot be undone any more goes to its end, cancelled or
// not, as long as its engine tells of itself.
func TestDecidedEngineGoesOn(t *testing.T) {
	m := testManager(t, testEngine(t))
	h := waiting(t, m, testJob("decided"))
	h.Cancel()
	if err := h.Wait(context.Background()); err != nil {
		t.Errorf("outcome %v", err)
	}
	h = waiting(t, m, testJob("decided and deaf"))
	h.Cancel()
	var died *EngineDiedError
	if err := h.Wait(context.Background()); !errors.As(err, &died) || !died.Killed {
		t.Errorf("outcome of one that does nothing any more: %v", err)
	}
}

// TestFailureIsTheEngines: a failure is told when the engine is gone, so that
// nobody puts the container back beside it, and is still the one that it told.
func TestFailureIsTheEngines(t *testing.T) {
	st, err := do(t, testManager(t, testEngine(t)), testJob("fail and stay"))
	if err == nil || !strings.Contains(err.Error(), "it has failed") || st.Phase != Failed {
		t.Errorf("outcome %v, %+v", err, st)
	}
	if err := syscall.Kill(st.Engine, 0); !errors.Is(err, syscall.ESRCH) {
		t.Errorf("the engine, pid %d, was still there when its failure was told: %v", st.Engine, err)
	}
}

// TestDoubt: what is in doubt is in the status of a request that has ended, and is
// not forgotten with others that have.
func TestDoubt(t *testing.T) {
	m := testManager(t, testEngine(t))
	h, err := m.Submit(t.Context(), testJob("refuse"))
	if err != nil {
		t.Fatal(err)
	}
	h.Doubt(&Doubt{Since: time.Now(), Destination: "beta", Answer: "LOST"}) // behind the end
	for range m.opts.Keep + 1 {
		_, _ = do(t, m, testJob("refuse"))
	}
	if err := m.store.prune(m.opts.Keep, time.Now()); err != nil {
		t.Fatal(err)
	}
	st, err := m.Store().Read(h.ID())
	if err != nil || st.Phase != Failed || st.Over() || st.Doubt == nil || st.Doubt.Answer != "LOST" {
		t.Fatalf("in doubt: %+v, %v", st, err)
	}
	h.Doubt(nil)
	if st, err = m.Store().Read(h.ID()); err != nil || !st.Over() || st.Doubt != nil {
		t.Errorf("out of doubt: %+v, %v", st, err)
	}
}

// TestDoubtUnderWay: what the engine doubts is in the status while it asks, and not any
// more when it knows.
func TestDoubtUnderWay(t *testing.T) {
	m := testManager(t, testEngine(t))
	h, err := m.Submit(t.Context(), testJob("doubt"))
	if err != nil {
		t.Fatal(err)
	}
	told := make(chan struct{})
	h.OnDoubt(func() { close(told) })
	<-told
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(time.Millisecond) {
		st, err := m.Store().Read(h.ID())
		if err == nil && st.Phase == Active && !st.Over() && st.Doubt != nil && st.Doubt.Answer == "READY" && st.Progress.Doubt == nil {
			break
		}
		if time.Now().After(end) {
			t.Fatalf("in doubt: %+v, %v", st, err)
		}
	}
	h.OnDoubt(func() { t.Log("told again, of what is so already") })
	h.Cancel()
	_ = h.Wait(t.Context())
	if st, err := m.Store().Read(h.ID()); err != nil || !st.Over() || st.Doubt != nil {
		t.Errorf("out of doubt: %+v, %v", st, err)
	}
}

func TestTimeout(t *testing.T) {
	j := testJob("wait")
	j.Timeout = 200 * time.Millisecond
	st, err := do(t, testManager(t, testEngine(t)), j)
	if err == nil || st.Phase != Failed || !strings.Contains(st.Failure.Text, "time-out of 200ms") {
		t.Errorf("%v, %+v", err, st)
	}
}

// TestSupervisorDies kills a supervisor in a process of its own: its engine has
// to cancel the job by itself, though its standard error leads nowhere.
func TestSupervisorDies(t *testing.T) {
	if os.Getenv("MIG_TEST_SUPERVISOR") != "" {
		j := testJob("wait")
		j.Options["mark"] = os.Getenv("MIG_TEST_SUPERVISOR")
		h := waiting(t, testManager(t, testEngine(t)), j)
		os.WriteFile(j.Options["mark"]+".up", []byte(strconv.Itoa(h.Status().Engine)), 0o600)
		select {}
	}
	file := filepath.Join(t.TempDir(), "mark")
	// The killed one cannot remove its directories, and its engine may still be
	// ending when this test does.
	theirs, err := os.MkdirTemp("", "TestSupervisorDies")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(theirs) })
	exe, _ := os.Executable()
	p, err := os.StartProcess(exe, []string{exe, "-test.run", "^TestSupervisorDies$"},
		&os.ProcAttr{Env: append(os.Environ(), "MIG_TEST_SUPERVISOR="+file, "TMPDIR="+theirs), Files: []*os.File{nil, nil, nil}})
	if err != nil {
		t.Fatal(err)
	}
	await(t, file+".up")
	p.Kill()
	p.Wait()
	if got := await(t, file); !strings.Contains(got, "supervisor") {
		t.Errorf("the engine was told %q", got)
	}
}

func await(t *testing.T, file string) string {
	t.Helper()
	for range 3000 {
		if b, err := os.ReadFile(file); err == nil && len(b) > 0 {
			return string(b)
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Fatalf("%s does not appear", file)
	return ""
}

func TestLogIsBounded(t *testing.T) {
	e := testEngine(t)
	if _, err := do(t, testManager(t, e), testJob("chatty")); err != nil {
		t.Fatal(err)
	}
	fi, err := os.Stat(e.Log(nil))
	if err != nil || fi.Size() < MaxLog || fi.Size() > MaxLog+100 {
		t.Errorf("the log has %d bytes: %v", fi.Size(), err)
	}
}

func TestRefusals(t *testing.T) {
	m := testManager(t, testEngine(t))
	for what, change := range map[string]func(*job.Job){
		"unknown kind":        func(j *job.Job) { j.Kind = "teleport" },
		"needs a cont":        func(j *job.Job) { j.Container = "" },
		"no valid cont":       func(j *job.Job) { j.Container = "../x" },
		"needs an image":      func(j *job.Job) { j.Image = "" },
		"first process":       func(j *job.Job) { j.InitPid = 0 },
		"no strategy":         func(j *job.Job) { j.Strategy = "hope" },
		"cannot be post-copy": func(j *job.Job) { j.Strategy = "post-copy" },
		"1 descriptors, 0":    func(j *job.Job) { j.Files = []string{"x"} },
		"stream 1 names":      func(j *job.Job) { j.Stdio[1].File = 0 },
	} {
		j := testJob("progress")
		change(&j)
		if _, err := m.Submit(context.Background(), j); err == nil || !strings.Contains(err.Error(), what) {
			t.Errorf("%s: %v", what, err)
		}
	}
	if all, _ := m.Store().List(); len(all) != 0 {
		t.Error("a refused request has a status")
	}
}

// TestPrepared: a prepared process does the job; one that is gone is replaced;
// one that got no job ends with Close.
func TestPrepared(t *testing.T) {
	e := testEngine(t)
	m := testManager(t, e)
	q := e.Prepare()
	waiting := <-q.waiting
	q.waiting <- waiting
	h, err := m.SubmitTo(t.Context(), q, testJob("progress"))
	if err != nil {
		t.Fatal(err)
	}
	if err := h.Wait(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := h.Status().Engine; got != waiting.cmd.Process.Pid {
		t.Errorf("process %d did the job, not %d, which was prepared", got, waiting.cmd.Process.Pid)
	}

	q = e.Prepare()
	waiting = <-q.waiting
	_ = waiting.cmd.Process.Kill()
	_, _ = waiting.cmd.Process.Wait()
	q.waiting <- waiting
	if h, err = m.SubmitTo(t.Context(), q, testJob("progress")); err != nil {
		t.Fatal(err)
	}
	if err := h.Wait(t.Context()); err != nil {
		t.Errorf("with a prepared process that has died: %v", err)
	}

	q = e.Prepare()
	waiting = <-q.waiting
	q.waiting <- waiting
	q.Close()
	if err := syscall.Kill(waiting.cmd.Process.Pid, 0); !errors.Is(err, syscall.ESRCH) {
		t.Errorf("after Close: %v", err)
	}
	q.Close()
}

// TestKeptDescriptors: what an engine has had held stays open when it dies, until
// it is released, and is closed when it ends well.
func TestKeptDescriptors(t *testing.T) {
	for _, dies := range []bool{false, true} {
		m := testManager(t, testEngine(t))
		kind := "keep"
		if dies {
			kind = "keep and die"
		}
		r, w, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		j := testJob(kind)
		j.Files = []string{"pipe"}
		h, err := m.Submit(context.Background(), j, w)
		if err != nil {
			t.Fatal(err)
		}
		w.Close()
		err = h.Wait(context.Background())
		if (err != nil) != dies {
			t.Fatalf("%s: %v", kind, err)
		}
		open := make(chan error, 1)
		go func() {
			_, err := r.Read(make([]byte, 1)) // ends when nobody has the other end
			open <- err
		}()
		if dies {
			select {
			case err := <-open:
				t.Errorf("it was closed with the engine: %v", err)
			case <-time.After(50 * time.Millisecond):
			}
			h.Release()
		}
		select {
		case <-open:
		case <-time.After(20 * time.Second):
			t.Errorf("%s: it is still held", kind)
		}
		r.Close()
	}
}

// TestLeftDescriptors: what an engine has left is open for as long as it was said, also
// when it has ended, and for no longer than an engine may say.
func TestLeftDescriptors(t *testing.T) {
	for kind, least := range map[string]time.Duration{"leave": 300 * time.Millisecond, "leave for ever": 0} {
		m := testManager(t, testEngine(t))
		r, w, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		j := testJob(kind)
		j.Files = []string{"pipe"}
		begun := time.Now()
		h, err := m.Submit(context.Background(), j, w)
		if err != nil {
			t.Fatal(err)
		}
		w.Close()
		if err := h.Wait(context.Background()); (err != nil) != (least == 0) {
			t.Errorf("%s: %v", kind, err)
		}
		open := make(chan struct{})
		go func() {
			r.Read(make([]byte, 1)) // ends when nobody has the other end
			close(open)
		}()
		select {
		case <-open:
		case <-time.After(20 * time.Second):
			t.Errorf("%s: it is still held", kind)
		}
		if took := time.Since(begun); took < least {
			t.Errorf("%s: it was held for %s", kind, took)
		}
		r.Close()
	}
}
