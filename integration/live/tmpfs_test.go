// SPDX-License-Identifier: Apache-2.0

package live

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/io-mig/mig/integration/internal/daemon"
	"github.com/io-mig/mig/integration/internal/image"
)

// TestMemoryFilesMove: what a container has on its memory file systems, and what
// it has mounted, is on the other host, and back, and counts as its memory.
func TestMemoryFilesMove(t *testing.T) {
	w := newWorld(t, daemon.V24, image.Busybox)
	const id, size = "files", 16 << 20
	w.d(w.alpha, "--cap-add", "CAP_SYS_ADMIN", id)
	w.alpha.exec(t, id, "sh", "-ec", "mkdir -p /run/app /run/mnt; echo 1 >/run/app/pid; chmod 640 /run/app/pid; chown 70:70 /run/app/pid; ln /run/app/pid /run/hard;"+
		"dd if=/dev/urandom of=/dev/shm/big bs=65536 count=256 2>/dev/null; mount -t tmpfs -o size=2m own /run/mnt; echo mine >/run/mnt/file; mkfifo /run/mnt/fifo")
	const list = "find /run /dev/shm ! -type s | sort | xargs stat -c '%n %a %u:%g %h %s %Y'; cat /run/app/pid /run/mnt/file; sha256sum /dev/shm/big; grep /run/mnt /proc/self/mountinfo | sed 's/.* - //'"
	want := w.alpha.exec(t, id, "sh", "-c", list)
	from, to := w.alpha, w.beta
	for range 2 {
		w.mustMove(from, id, to.IP)
		w.one(id, to, from)
		if got := to.exec(t, id, "sh", "-c", list); got != want {
			t.Errorf("before:\n%s\nafter:\n%s", want, got)
		}
		if n := memoryOf(t, to.pid(id)); n < size {
			t.Errorf("on %s the container has %d bytes of memory, and files of %d", to.Name, n, size)
		}
		from, to = to, from
	}
}

// memoryOf is what the memory cgroup of a process counts, in bytes.
func memoryOf(t *testing.T, pid string) int64 {
	t.Helper()
	text, err := os.ReadFile("/proc/" + pid + "/cgroup")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		f := strings.SplitN(strings.TrimSpace(line), ":", 3)
		if f[1] != "memory" {
			continue
		}
		b, err := os.ReadFile(filepath.Join("/sys/fs/cgroup/memory", f[2], "memory.usage_in_bytes"))
		if err != nil {
			t.Fatal(err)
		}
		n, err := strconv.ParseInt(strings.TrimSpace(string(b)), 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	t.Skip("no memory cgroup of version 1")
	return 0
}
