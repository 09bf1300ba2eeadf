// SPDX-License-Identifier: Apache-2.0

package programs

import (
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/io-mig/mig/integration/bench/driver"
	"github.com/io-mig/mig/integration/internal/hugepages"
)

// TestHugeSegmentsNeedTheRight: an image with System V shared memory of huge pages is
// not restored where the live spec does not give the capability that its container
// had, also as root; the refusal names it, and what was saved goes on.
func TestHugeSegmentsNeedTheRight(t *testing.T) {
	at := slices.IndexFunc(shared.list, func(p program) bool { return p.name == "huge_segments" })
	if at < 0 {
		t.Fatal("there is no such program")
	}
	if err := hugepages.Lend(t, 16); err != nil {
		t.Skip(err)
	}
	if err := hugepages.LetGroup(t, hostID); err != nil { // else root is in the group
		t.Fatal(err)
	}
	for _, u := range []user{asRoot, asUser} {
		t.Run(u.name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), timeout)
			defer cancel()
			c := shared.run(ctx, t, shared.list[at], u)
			image := shared.image()
			next := shared.checkpoint(ctx, t, c, image, true)
			t.Cleanup(func() { _ = os.RemoveAll(next.Bundle) })
			dropCapability(t, next, "CAP_IPC_LOCK")
			if _, err := shared.mig.Restore(ctx, next, image); err == nil || !strings.Contains(err.Error(), "give it CAP_IPC_LOCK") {
				t.Errorf("the restore says %v", err)
			}
			shared.good(ctx, t, c)
		})
	}
}

// dropCapability takes a capability out of a bundle's spec.
func dropCapability(t *testing.T, c *driver.Container, name string) {
	t.Helper()
	path := filepath.Join(c.Bundle, "config.json")
	var spec specs.Spec
	if err := json.Unmarshal(read(t, path), &spec); err != nil {
		t.Fatal(err)
	}
	caps := spec.Process.Capabilities
	for _, set := range []*[]string{&caps.Bounding, &caps.Effective, &caps.Permitted, &caps.Inheritable, &caps.Ambient} {
		*set = slices.DeleteFunc(*set, func(have string) bool { return have == name })
	}
	raw, err := json.Marshal(&spec)
	if err != nil {
		t.Fatal(err)
	}
	write(t, path, raw)
}
