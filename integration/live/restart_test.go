// SPDX-License-Identifier: Apache-2.0

package live

import (
	"strings"
	"testing"
	"time"
)

// restartEvery is how often containerd looks for containers that it has to start anew
// (its plugin restart).
const restartEvery = 10 * time.Second

// TestRestartPolicy: containerd starts a container anew whose task does not run, if its
// labels say so, as nerdctl run --restart=always has them. It does not so with a frame,
// with a copy that waits for its memory, or with an original that has moved; and the
// container has its policy wherever it goes on.
func TestRestartPolicy(t *testing.T) {
	w := newSteppedWorld(t)
	k := walkIn(w)
	const status, policy = "containerd.io/restart.status", "containerd.io/restart.policy"
	if r := k.on.d.Ctr(t.Context(), "containers", "label", k.id, status+"=running", policy+"=always"); r.Err() != nil {
		t.Fatal(r.Err())
	}
	labels := func(h *host) string { return h.d.Ctr(t.Context(), "containers", "info", k.id).Stdout }
	has := func(when string, h *host) {
		t.Helper()
		if s := labels(h); !strings.Contains(s, `"`+status+`": "running"`) || strings.Contains(s, `"io.mig/`) {
			t.Errorf("%s its labels on %s are %s", when, h.Name, s)
		}
	}
	alone := func(when string) {
		t.Helper()
		if p := k.processes(); len(p) != 1 {
			t.Fatalf("%s there are %d copies: %v", when, len(p), p)
		}
		k.same(k.on, k.id, k.was)
	}
	move := func(when string, fault *fault, flags ...string) *ordeal {
		t.Helper()
		o := k.suffer(flags, fault)
		if !fault.met {
			t.Fatalf("%s: nobody has died: %v", when, o.err)
		}
		return o
	}

	// It takes longer than containerd waits, with a frame first and a copy that waits.
	for _, strategy := range []string{"pre-copy", "post-copy"} {
		k.mustMove(k.on, "--strategy", strategy, "--bandwidth", "500kB", "--compress", "none", k.id, k.off.IP)
		k.on, k.off = k.off, k.on
		alone("behind a " + strategy)
		has("behind a "+strategy, k.on)
		k.clean(k.off)
	}

	// A move that fails.
	engine := &victim{name: theEngine, engine: true}
	move("a move that fails", &fault{step: "source: sealed", victim: engine})
	alone("behind a move that has failed")
	has("behind a move that has failed", k.on)
	k.clean(k.off, "lease mig-")

	// The original has ended, and nobody is there to remove it.
	var mig *victim
	for i := range victims {
		if victims[i].name == "mig" {
			mig = &victims[i]
		}
	}
	move("mig dies", &fault{step: "source: MOVED written", victim: mig})
	k.on, k.off = k.off, k.on
	time.Sleep(restartEvery + 5*time.Second)
	alone("when mig has died")
	has("when mig has died", k.on)
	if st := k.off.status(k.id); st == "RUNNING" || st == "CREATED" {
		t.Errorf("the original is %s", st)
	}
	k.off.d.Remove(k.id)

	// mig dies before COMMIT: migd of that host sees that nobody moves the container.
	move("mig dies early", &fault{step: "source: PREPARED heard", victim: mig})
	alone("when mig has died early")
	k.clean(k.off, "lease mig-")
	waitFor(t, patience, "the policy is back", func() bool { return strings.Contains(labels(k.on), `"`+status+`": "running"`) })
	has("when mig has died early", k.on)
	k.mustMove(k.on, k.id, k.off.IP)
	k.on, k.off = k.off, k.on
	alone("behind the next move")
	has("behind the next move", k.on)
}
