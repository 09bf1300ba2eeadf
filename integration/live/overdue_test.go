// SPDX-License-Identifier: Apache-2.0

package live

import (
	"bytes"
	"context"
	"encoding/json"
	"strings"
	"testing"
)

// TestAnswerOverdue: a destination that hears COMMIT and does nothing leaves the
// container frozen. While the source's engine asks it, mig status, ctr and mig migrate
// say so; when it goes on, the move is like any other.
func TestAnswerOverdue(t *testing.T) {
	w := newSteppedWorld(t)
	const id, step = "counter", "destination: COMMIT heard"
	was := w.startCounter(id)
	w.stopAt(w.beta, id, step)
	token := newToken()
	var out bytes.Buffer
	errs := newTextFile(t)
	cmd := w.alpha.migrate(context.Background(), "--token", token, id, w.beta.IP)
	cmd.Stdout, cmd.Stderr = &out, errs
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	pid := w.stopped(w.beta, id, step)
	said := func(args ...string) string {
		b, err := w.alpha.Command(t.Context(), w.alpha.d.Tree.Bin("mig"), append([]string{"status"}, args...)...).CombinedOutput()
		if err != nil {
			t.Errorf("mig status: %v", err)
		}
		return string(b)
	}
	waitFor(t, settleWithin, "mig status says that it is asked again", func() bool {
		return strings.Contains(said(token), "in doubt whether the copy runs: COMMIT was not answered in time, its host is asked again")
	})
	waitFor(t, settleWithin, "it is PAUSED for ctr", func() bool { return w.alpha.status(id) == "PAUSED" })
	if r := w.alpha.d.Ctr(t.Context(), "tasks", "resume", id); r.Code == 0 || !strings.Contains(r.Stderr, "in doubt") {
		t.Errorf("ctr resumes it: %+v", r)
	}
	waitFor(t, settleWithin, "mig migrate says that it is in doubt", func() bool {
		return strings.Contains(errs.String(), "in doubt whether its copy on beta runs")
	})
	if all := said(); !strings.Contains(all, "in doubt") || strings.Contains(all, "failed") {
		t.Errorf("while its engine asks, mig status says %s", all)
	}
	w.goOn(pid)
	if err := cmd.Wait(); err != nil {
		t.Fatalf("%v: %s", err, errs)
	}
	var r report
	if err := json.Unmarshal(out.Bytes(), &r); err != nil || !r.Moved || r.InDoubtMS <= 0 {
		t.Errorf("%v: %s", err, out.String())
	}
	if all := said(token); strings.Contains(all, "doubt") || !strings.Contains(all, "succeeded") {
		t.Errorf("when the copy runs, mig status says %s", all)
	}
	w.same(w.beta, id, was)
	w.one(id, w.beta, w.alpha)
}
