// SPDX-License-Identifier: Apache-2.0

package live

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"syscall"
	"testing"
)

// TestDestinationStartedAnew: the machine with the copy goes down before its migd has
// made that a container like any other, and knows nothing of it afterwards. Its memory
// is gone; its files are still where it came from.
func TestDestinationStartedAnew(t *testing.T) {
	k := newWalk(t)
	machine := &victim{
		name: "destination's machine", know: func(_, off *host, _ int) int { return off.migd.cmd.Process.Pid },
		revive: func(w *world, _, off *host) error {
			if err := off.migd.stop(syscall.SIGKILL); err != nil && !errors.Is(err, os.ErrProcessDone) {
				return err
			}
			waitFor(t, settleWithin, "the copy runs without its engine", func() bool { return len(off.engines()) == 0 })
			if err := off.d.Ctr(t.Context(), "tasks", "kill", "--signal", "SIGKILL", k.id).Err(); err != nil {
				return err
			}
			waitFor(t, settleWithin, "its task ends", func() bool { return off.status(k.id) == "STOPPED" })
			if err := errors.Join(off.d.Ctr(t.Context(), "tasks", "rm", k.id).Err(), os.RemoveAll(off.Path("/run/mig"))); err != nil {
				return err
			}
			off.migd = w.startMigd(off)
			return nil
		},
	}
	o := k.suffer(nil, &fault{step: "destination: RUNNING sent", victim: machine})
	if says := fmt.Sprint(o.err); o.report == nil || !o.report.Moved || !strings.Contains(says, "is kept") || !strings.Contains(says, "does not know the move") {
		t.Errorf("mig migrate says %s, %+v", says, o.report)
	}
	k.clean(k.off)
	found := strings.Join(k.on.left(), "\n")
	if !strings.Contains(found, "container "+k.id) || !strings.Contains(found, "snapshot "+k.id) {
		t.Errorf("of the container there is left: %s", found)
	}
	if st := k.on.status(k.id); st != "STOPPED" {
		t.Errorf("the original is %s", st)
	}
	// It is run anew, from its files.
	if err := errors.Join(k.on.d.Ctr(t.Context(), "tasks", "rm", k.id).Err(), k.on.d.Ctr(t.Context(), "tasks", "start", "-d", k.id).Err()); err != nil {
		t.Error(err)
	}
}
