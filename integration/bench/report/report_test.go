// SPDX-License-Identifier: Apache-2.0

package report

import (
	"bytes"
	"errors"
	"strings"
	"testing"

	"github.com/io-mig/mig/integration/bench/stats"
)

func TestReplaced(t *testing.T) {
	begin, end := marks("results")
	otherBegin, otherEnd := marks("live")
	other := otherBegin + "\nstays\n" + otherEnd + "\n"
	text := "above\n" + begin + "\nold\n" + end + "\nbelow\n" + other
	got, err := replaced(text, "results", "new\n")
	want := "above\n" + begin + "\n\nnew\n\n" + end + "\nbelow\n" + other
	if err != nil || got != want {
		t.Errorf("got %q, %v", got, err)
	}
	if _, err := replaced("no lines", "results", "new"); err == nil {
		t.Error("a document without the lines was accepted")
	}
	if _, err := replaced(end+begin, "results", "new"); err == nil {
		t.Error("lines in the wrong order were accepted")
	}
	if _, err := replaced(other, "results", "new"); err == nil {
		t.Error("the lines of another report were accepted")
	}
}

func TestGoals(t *testing.T) {
	var s Section
	s.AtMost("slow", "", stats.Series{0.5, 0.1, 0.2}, 1.0/8)
	s.AtMost("fast", "", stats.Series{0.1}, 1.0/8)
	s.AtLeast("rate", "", stats.Series{0.7}, 0.7)
	s.AtMost("unmeasured", "", nil, 1)
	if len(s.Goals) != 3 || s.Goals[0].Met || !s.Goals[1].Met || !s.Goals[2].Met {
		t.Errorf("goals: %+v", s.Goals)
	}
	if got := s.Goals[0].String(); got != "slow: 1/5.00, goal <= 1/8.00" {
		t.Errorf("a goal reads %q", got)
	}
}

func TestWorstIsTheSlowest(t *testing.T) {
	var s Section
	s.Row("time", Milliseconds, stats.Series{1, 9})
	s.Row("rate", Rate, stats.Series{1, 9})
	s.Row("unmeasured", Rate, nil)
	if len(s.Rows) != 2 || s.Rows[0].Worst != 9 || s.Rows[1].Worst != 1 {
		t.Errorf("rows: %+v", s.Rows)
	}
}

func TestFailuresAreShown(t *testing.T) {
	r := &Report{}
	s := r.Add("title", "")
	s.Fail("nothing", nil)
	s.Fail("it", errors.New("first\nsecond"))
	var out bytes.Buffer
	s.Print(&out)
	if r.Failed() != 1 || !strings.Contains(out.String(), "FAILED it: first") || !strings.Contains(r.Markdown(""), "failed: it: first second") {
		t.Errorf("%d failures, printed as %q", r.Failed(), out.String())
	}
}
