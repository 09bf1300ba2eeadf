// SPDX-License-Identifier: Apache-2.0

package handover

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

var rewrite = flag.Bool("rewrite", false, "write the traces into testdata instead of comparing them")

// TestStories runs the stories of testdata. Each line is an event: an input, a
// message that arrives, a crash, or "go" for the next action of a side ("goes"
// for all of them). Below "----" is what follows from it.
func TestStories(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatalf("no stories: %v", err)
	}
	for _, f := range files {
		old, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		var out bytes.Buffer
		for i, block := range strings.Split(strings.TrimRight(string(old), "\n"), "\n\n") {
			if i > 0 {
				out.WriteString("\n")
			}
			events, _, _ := strings.Cut(block, "\n----")
			fmt.Fprintf(&out, "%s\n----\n%s", events, tell(t, events))
		}
		switch {
		case *rewrite:
			if err := os.WriteFile(f, out.Bytes(), 0o644); err != nil {
				t.Fatal(err)
			}
		case out.String() != string(old):
			t.Errorf("%s tells another story now:\n%s", f, out.String())
		}
	}
}

func tell(t *testing.T, events string) string {
	var b strings.Builder
	s := newSystem()
	for _, e := range strings.Split(events, "\n") {
		if strings.HasPrefix(e, "#") {
			continue
		}
		who, what, _ := strings.Cut(e, " ")
		src := who == "source"
		if !src && who != "destination" {
			t.Fatalf("event %q: nobody is called %q", e, who)
		}
		fmt.Fprintf(&b, "%s\n", e)
		n, err := s.event(src, what)
		if err != nil {
			t.Fatalf("event %q: %v", e, err)
		}
		s = n
		for all := what != "crashes"; all; {
			var a Action
			switch {
			case src && s.srcTodo != "":
				s, a = s.doSource()
			case !src && s.dstTodo != "" && !strings.HasSuffix(what, "then stops"):
				s, a = s.doDestination()
			default:
				all = false
				continue
			}
			fmt.Fprintf(&b, "  %s\n", a)
			if w := s.wrong(); w != "" {
				fmt.Fprintf(&b, "  WRONG: %s\n", w)
			}
		}
	}
	fmt.Fprintf(&b, "%s\n", s)
	return b.String()
}

func (s system) event(src bool, what string) (system, error) {
	what = strings.TrimSuffix(what, ", then stops")
	if m, ok := strings.CutPrefix(what, "hears "); ok {
		for k := Ready; k <= Lost; k++ {
			if k.String() != m {
				continue
			}
			wire := s.toDst
			if src {
				wire = s.toSrc
			}
			if wire&(1<<k) == 0 {
				return s, fmt.Errorf("%s was never sent", m)
			}
			return s.hear(src, k), nil
		}
		return s, fmt.Errorf("there is no message %q", m)
	}
	inputs := map[string]Input{"prepared": Prepared, "fails": Failed, "meets": Met, "forced": Forced, "runs nothing": NotRun, "runs a part": PartlyRun}
	in, ok := inputs[what]
	switch {
	case ok && src:
		return s.source(in), nil
	case ok:
		return s.destination(in), nil
	case what == "crashes" || what == "comes back":
		if src {
			return s.crashSource(), nil
		}
		return s.crashDestination(false), nil
	case what == "host crashes":
		return s.crashDestination(true), nil
	}
	return s, fmt.Errorf("what is %q?", what)
}
