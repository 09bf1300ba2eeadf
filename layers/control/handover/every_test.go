// SPDX-License-Identifier: Apache-2.0

package handover

import "testing"

// next lists every state that can follow: each side's next action, a crash
// before it, or, where a side is idle, each input and each message that was
// ever sent to it.
func (s system) next() map[string]system {
	n := map[string]system{}
	if s.srcTodo != "" {
		after, a := s.doSource()
		n["source: "+a.String()] = after
	} else {
		n["source prepared"] = s.source(Prepared)
		n["source fails"] = s.source(Failed)
		n["source meets"] = s.source(Met)
		// A person frees the source only if the copy is dead for good.
		if s.dstTodo == "" && (s.dst.Entry == EntryLost || s.dst.Entry == EntryAborted) {
			n["source forced"] = s.source(Forced)
		}
		for m := Ready; m <= Lost; m++ {
			if s.toSrc&(1<<m) != 0 {
				n["source hears "+m.String()] = s.hear(true, m)
			}
		}
	}
	if s.dstTodo != "" {
		after, a := s.doDestination()
		n["destination: "+a.String()] = after
		if a.Verb == Run {
			failed := s
			failed.dstTodo = ""
			n["destination: nothing could be run"] = failed.destination(NotRun)
			failed.ran = true
			n["destination: a part could be run"] = failed.destination(PartlyRun)
		}
	} else {
		if s.dstTasks == frozen {
			n["destination prepared"] = s.destination(Prepared)
		}
		n["destination fails"] = s.destination(Failed)
		n["destination meets"] = s.destination(Met)
		for m := Ready; m <= Lost; m++ {
			if s.toDst&(1<<m) != 0 {
				n["destination hears "+m.String()] = s.hear(false, m)
			}
		}
	}
	n["source crashes"] = s.crashSource()
	n["destination crashes"] = s.crashDestination(false)
	n["destination's host crashes"] = s.crashDestination(true)
	return n
}

type step struct {
	from  system
	event string
}

// explore visits every state that can be reached, and how.
func explore(t *testing.T) map[system]step {
	t.Helper()
	seen := map[system]step{newSystem(): {}}
	todo := []system{newSystem()}
	for len(todo) > 0 {
		s := todo[0]
		todo = todo[1:]
		for event, n := range s.next() {
			if _, known := seen[n]; known {
				continue
			}
			seen[n] = step{s, event}
			todo = append(todo, n)
			if w := n.wrong(); w != "" {
				t.Fatalf("%s:%s", w, story(seen, n))
			}
		}
	}
	return seen
}

func story(seen map[system]step, s system) string {
	if s == newSystem() {
		return ""
	}
	return story(seen, seen[s].from) + "\n  " + seen[s].event + "  -> " + s.String()
}

// TestOneCopyAlways goes through every state that any sequence of losses,
// doubles, delays, reorderings and crashes can lead to. In none of them run two
// copies, and from each of them there is a way to exactly one.
func TestOneCopyAlways(t *testing.T) {
	seen := explore(t)
	back := map[system][]system{}
	var ways []system
	good := map[system]bool{}
	for s := range seen {
		for _, n := range s.next() {
			back[n] = append(back[n], s)
		}
		if s.settled() {
			good[s] = true
			ways = append(ways, s)
		}
	}
	for len(ways) > 0 {
		s := ways[0]
		ways = ways[1:]
		for _, b := range back[s] {
			if !good[b] {
				good[b] = true
				ways = append(ways, b)
			}
		}
	}
	for s := range seen {
		if !good[s] {
			t.Fatalf("no way leads out of: %s%s", s, story(seen, s))
		}
	}
	t.Logf("%d states", len(seen))
	if len(seen) < 500 {
		t.Errorf("only %d states: the exploration has lost its teeth", len(seen))
	}
}

// TestSourceGoesOnBeforeCommit: whatever happened before COMMIT was written
// down, a crash of the source leaves it running.
func TestSourceGoesOnBeforeCommit(t *testing.T) {
	for s := range explore(t) {
		if s.srcJ == EntryCommitted || s.srcJ == EntryMoved {
			continue
		}
		n := s.crashSource()
		for n.srcTodo != "" {
			n, _ = n.doSource()
		}
		if n.srcTasks != goingOn {
			t.Fatalf("from %s to %s", s, n)
		}
	}
}
