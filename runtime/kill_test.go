// SPDX-License-Identifier: Apache-2.0

package runtime

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// TestKillOfFrozen: of a frozen container whose init is killed nothing runs again, not
// even for as long as the init needs to die. Its copy may be the container by now.
func TestKillOfFrozen(t *testing.T) {
	s := newSandbox(t)
	for i := range 20 {
		id := fmt.Sprint("frozen", i)
		file := filepath.Join(s.bundle, "rootfs/tmp", id)
		size := func() int64 {
			info, err := os.Stat(file)
			if err != nil {
				return 0
			}
			return info.Size()
		}
		c := s.start(s.options(id, s.spec(id, sh("for i in 1 2 3 4 5 6 7 8; do while :; do echo >> /tmp/"+id+"; done & done; while :; do :; done")...)))
		eventually(t, "the companions write", func() bool { return size() > 100 })
		must(t, c.Pause())
		before := size()
		must(t, c.Signal(unix.SIGKILL, false))
		waitDone(t, c.Init())
		s.destroy(c)
		if n := size() - before; n != 0 {
			t.Fatalf("after the freeze its companions have written %d lines", n)
		}
	}
}
