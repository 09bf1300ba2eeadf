// SPDX-License-Identifier: Apache-2.0

package control

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"

	"github.com/io-mig/mig/spec/record"
)

// looks answers each look with the next of its lists.
type looks [][]record.Finding

func (l *looks) Preflight(context.Context) ([]record.Finding, error) {
	f := (*l)[0]
	if len(*l) > 1 {
		*l = (*l)[1:]
	}
	return f, nil
}

// TestPreflightLooksAgain: what is gone in a later look does not refuse, what is
// there in all of them does, and what appears in between is the next event's.
func TestPreflightLooksAgain(t *testing.T) {
	connection := func(pid int) record.Finding {
		return record.Finding{Pid: pid, FD: 3, Subsystem: "socket", What: "connection"}
	}
	warning := record.Finding{Subsystem: "file", What: "lease", Warning: true}
	for name, c := range map[string]struct {
		looks looks
		want  int
	}{
		"nothing":           {looks{{warning}}, 1},
		"stays":             {looks{{connection(1), warning}}, 2},
		"goes":              {looks{{connection(1), warning}, {warning}}, 1},
		"goes at last":      {looks{{connection(1)}, {connection(1)}, {}}, 0},
		"another each time": {looks{{connection(1)}, {connection(2)}, {connection(3)}}, 0},
		"one of two stays":  {looks{{connection(1), connection(2)}, {connection(2), connection(3)}}, 1},
	} {
		synctest.Test(t, func(t *testing.T) {
			found, err := Preflight(t.Context(), &c.looks)
			if err != nil || len(found) != c.want {
				t.Errorf("%s: %v, %v, want %d", name, found, err, c.want)
			}
		})
	}
	canceled, cancel := context.WithCancelCause(t.Context())
	why := errors.New("why")
	cancel(why)
	if _, err := Preflight(canceled, &looks{{connection(1)}}); !errors.Is(err, why) {
		t.Errorf("a cancelled one: %v", err)
	}
}

// meeter answers when n subsystems are being asked.
type meeter struct {
	Subsystem
	name  string
	all   *sync.WaitGroup
	once  sync.Once // it is asked again where it refuses
	finds record.Finding
}

func (m *meeter) Name() string { return m.name }

func (m *meeter) Preflight(context.Context) ([]record.Finding, error) {
	m.once.Do(m.all.Done)
	m.all.Wait()
	return []record.Finding{m.finds}, nil
}

// TestPreflightSideBySide: subsystems are asked at the same time, and what they
// find is in their order.
func TestPreflightSideBySide(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var all sync.WaitGroup
		var subs []Subsystem
		names := []string{"a", "b", "c"}
		all.Add(len(names))
		for _, n := range names {
			subs = append(subs, &meeter{name: n, all: &all, finds: record.Finding{What: n, Warning: n == "b"}})
		}
		x := NewExport(ExportOptions{Subsystems: subs, Tuning: Tuning{Workers: len(names), Watchdog: -1}})
		var refused *PreflightError
		if err := x.preflight(t.Context()); !errors.As(err, &refused) {
			t.Fatal(err)
		}
		if f := refused.Findings; len(f) != 2 || f[0].What != "a" || f[1].What != "c" {
			t.Errorf("refused for %v", f)
		}
	})
}
