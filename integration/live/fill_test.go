// SPDX-License-Identifier: Apache-2.0

package live

import (
	"fmt"
	"os"
	"testing"
	"time"
)

// TestLongFill: a copy that runs gets its memory for as long as that takes, whoever has
// given up waiting for it: longer than a job may take that was cancelled. Without
// MIG_SOAK only mig dies.
func TestLongFill(t *testing.T) {
	const long = 70 * time.Second
	r := &randomWalk{walk: walkIn(newSteppedWorld(t)), tally: &tally{}}
	_, r.descriptors = r.program()
	for n, test := range []struct {
		fault     *fault
		bandwidth string // nothing of 8 MB or more comes before the switch
	}{
		{&fault{step: "source: left", victim: r.mortal("mig")}, "130kB"},
		{&fault{step: "destination: filling", victim: r.mortal("destination's containerd")}, "100kB"},
		{&fault{step: "destination: filling", out: long}, "1MB"},
	} {
		if n > 0 && os.Getenv("MIG_SOAK") == "" {
			break
		}
		from, begun := r.on, time.Now()
		r.check("post-copy", []string{"--bandwidth", test.bandwidth, "--compress", "none"}, test.fault)
		if took := time.Since(begun); !test.fault.met || r.on == from || r.anew() || took < long {
			t.Errorf("%v: met %v, on %s after %s", test.fault, test.fault.met, r.on.Name, took)
		}
	}
}

// anew: the container was lost, and had to be run anew.
func (r *randomWalk) anew() bool {
	for _, row := range r.tally.rows {
		if row.gone > 0 {
			return true
		}
	}
	return false
}

// mortal is a victim by its name.
func (k *walk) mortal(name string) *victim {
	for i := range mortals {
		if mortals[i].name == name {
			return &mortals[i]
		}
	}
	panic(fmt.Sprintf("there is no victim %q", name))
}
