// SPDX-License-Identifier: Apache-2.0

package runtime

import (
	"testing"

	"github.com/opencontainers/cgroups"
	"github.com/opencontainers/runtime-spec/specs-go"
)

// TestUpdateOfFrozen: a change of limits lets nothing run that somebody else has frozen,
// as an engine does without our knowing, whatever was frozen and thawed here before.
func TestUpdateOfFrozen(t *testing.T) {
	s := newSandbox(t)
	c := s.start(s.options("frozen", s.spec("frozen", sh("while :; do :; done")...)))
	must(t, c.Pause())
	must(t, c.Resume())
	other, err := Load(c.root, "frozen") // of another process
	must(t, err)
	must(t, other.cg.Freeze(cgroups.Frozen))
	for range 2 {
		limit := int64(50)
		must(t, c.Update(&specs.LinuxResources{Pids: &specs.LinuxPids{Limit: &limit}}))
		frozen, err := c.frozen()
		must(t, err)
		if !frozen {
			t.Fatal("it is thawed")
		}
	}
	// Nor does one freeze what was thawed.
	must(t, other.cg.Freeze(cgroups.Thawed))
	must(t, c.Pause())
	must(t, other.cg.Freeze(cgroups.Thawed))
	limit := int64(60)
	must(t, c.Update(&specs.LinuxResources{Pids: &specs.LinuxPids{Limit: &limit}}))
	if frozen, err := c.frozen(); err != nil || frozen {
		t.Errorf("it is frozen: %v, %v", frozen, err)
	}
}
