// SPDX-License-Identifier: Apache-2.0

package live

import (
	"fmt"
	"strings"
	"testing"

	"github.com/io-mig/mig/integration/internal/daemon"
)

// TestMarksMove: marks of fanotify groups are on the files, directories and file
// systems of the other host, and back, and tell what happens there. What was told and
// not read is told as an overflow, which the move warns of.
func TestMarksMove(t *testing.T) {
	i := witness(t, "marks")
	w := newWorld(t, daemon.V24, i)
	// Marks on a whole file system need the capability.
	w.runPodWith([]string{"--cap-add", "CAP_SYS_ADMIN"}, i, "marks", "/marks")
	c := w.questions()
	w.good(c, "build")
	w.good(c, "verify")
	from, to := w.alpha, w.beta
	for n := range 3 {
		unread := n == 1
		if unread {
			w.good(c, "change")
		}
		r := w.mustMove(from, "marks", to.IP)
		if warned := strings.Contains(fmt.Sprint(r.Warnings), "overflow"); warned != unread {
			t.Errorf("move %d warns of %q", n, r.Warnings)
		}
		if unread {
			w.good(c, "overflow")
		}
		w.good(c, "verify")
		w.one("marks", to, from)
		from, to = to, from
	}
}
