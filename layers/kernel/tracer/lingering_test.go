// SPDX-License-Identifier: Apache-2.0

package tracer

import (
	"context"
	"fmt"
	"os"
	"strings"
	"testing"
)

// TestLingering: of a process that does not end a person is told what it waits
// for. One that is stopped by us stands for it.
func TestLingering(t *testing.T) {
	g := launch(t, "victim")
	tr := newTracer(t)
	p, err := tr.Attach(context.Background(), Options{Pid: g.pid})
	must(t, err)
	said := p.lingering()
	for _, want := range []string{fmt.Sprintf("task %d is in state t at ", g.pid), "ptrace_stop"} {
		if !strings.Contains(said, want) {
			t.Errorf("%q lacks %q", said, want)
		}
	}
	if want := fmt.Sprintf("traced by %d", tr.tid); !strings.Contains(said, want) {
		t.Errorf("%q lacks %q (this program is %d)", said, want, os.Getpid())
	}
	must(t, p.Detach())
}
