// SPDX-License-Identifier: Apache-2.0

package live

import (
	"testing"

	"github.com/io-mig/mig/integration/internal/daemon"
	"github.com/io-mig/mig/integration/internal/hugepages"
)

// TestHugePagesMove: a program that writes to huge pages is refused while the other
// host has too few of them, and runs on; then it moves there and back, by both ways to
// carry memory.
func TestHugePagesMove(t *testing.T) {
	// Of testdata/huge.c. A host whose source has most of the pool has too few of
	// them, whatever other tests have borrowed meanwhile.
	const needed, spare = 113, 4
	if err := hugepages.Lend(t, needed+spare); err != nil {
		t.Skip(err)
	}
	i := witness(t, "huge")
	w := newWorld(t, daemon.V24, i)
	w.runPodWith([]string{"--mount", "type=hugetlbfs,src=hugetlbfs,dst=/hugefs,options=pagesize=2M:mode=1777"}, i, "huge", "/huge")
	c := w.questions()
	w.good(c, "verify")
	w.refused(w.alpha, "113 huge pages of 2 MB, and", "huge", w.beta.IP)
	w.good(c, "verify")
	w.one("huge", w.alpha, w.beta)

	if err := hugepages.Lend(t, needed); err != nil {
		t.Skip(err)
	}
	w.mustMove(w.alpha, "huge", w.beta.IP)
	w.good(c, "verify")
	w.one("huge", w.beta, w.alpha)
	w.mustMove(w.beta, "--strategy", "post-copy", "huge", w.alpha.IP)
	w.good(c, "verify")
	w.one("huge", w.alpha, w.beta)
}
