// SPDX-License-Identifier: Apache-2.0

package migrate

import (
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/io-mig/mig/layers/request"
	"github.com/io-mig/mig/spec/wire"
)

// TestOverdueAnswer: while the source's engine asks what became of COMMIT, which a
// destination that does nothing has not answered, the status says that the container is
// in doubt, and the shim is told. When the destination goes on, nothing is in doubt.
func TestOverdueAnswer(t *testing.T) {
	w := newWorld(t, "1")
	t.Cleanup(func() { fault(t, "") })
	from := w.source()
	told := make(chan struct{}, 16)
	w.inDoubt = func() { told <- struct{}{} }
	fault(t, "stop destination: COMMIT heard")
	before, _, _ := from.report()
	token := wire.NewToken()
	to, arrived := w.destination(w.root.Context(), token)
	begun := time.Now()
	moved := w.move(w.root.Context(), from, w.address(token))
	pid := w.stopped(token, false)
	fault(t, "")
	st := w.awaitDoubt(token, "READY")
	if st.Phase != request.Active || st.Over() || st.Doubt.Destination != w.addr || st.Doubt.Since.Before(begun) {
		t.Errorf("in doubt it is %s: %+v", st.Phase, st.Doubt)
	}
	select {
	case <-told:
	case <-time.After(patience):
		t.Error("the shim is not told that it is in doubt")
	}
	if from.runs() {
		t.Error("in doubt, the source runs")
	}
	w.must(unix.Kill(pid, unix.SIGCONT))
	if runs := w.settled(from, to, before, moved, arrived, token); runs != to {
		t.Error("the container has not moved")
	}
	w.awaitDoubt(token, "")
}
