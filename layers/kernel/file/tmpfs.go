// SPDX-License-Identifier: Apache-2.0

package file

import (
	"fmt"
	"io/fs"
	"os"
	"path"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/io-mig/mig/layers/kernel/procfs"
	"github.com/io-mig/mig/layers/kernel/target"
	"github.com/io-mig/mig/spec/record"
)

const (
	// maxWalk bounds how many names of one tmpfs are looked at.
	maxWalk = 10000
	// maxNamed is how many of what is lost a finding names.
	maxNamed = 3
)

// leftBehind warns of what is on the memory file systems of the container and is
// not open: a restored container's are empty, but for what the runtime puts
// there. The walk never leaves the container's root, whatever links it finds.
func (l *looker) leftBehind(open []target.Descriptor) ([]record.Finding, error) {
	root, err := os.OpenRoot(l.proc.Path("root"))
	if err != nil {
		return nil, err
	}
	defer root.Close()
	carried := map[fileID]bool{}
	for i := range open {
		carried[fileID{open[i].Stat.Dev, open[i].Stat.Ino}] = true
	}
	var out []record.Finding
	seen := map[procfs.Dev]bool{}
	for _, m := range l.ownTmpfses() {
		if seen[m.Dev] {
			continue
		}
		seen[m.Dev] = true
		names, more := l.lost(root, &m, carried)
		if len(names) == 0 {
			continue
		}
		what := fmt.Sprintf("tmpfs %s: %s", m.Target, strings.Join(names, ", "))
		if more > 0 {
			what += fmt.Sprintf(" and %d more", more)
		}
		out = append(out, record.Finding{
			Pid: l.pid, FD: -1, Subsystem: Name, Warning: true, What: what,
			Why:    "what is on a tmpfs of the container and not open is not carried by this version: it is not there after a restore",
			Remedy: "mount a volume there, if the program needs it",
		})
	}
	return out, nil
}

// lost names what is on one mount, and counts what it does not name. Names that
// go while the tasks run are none.
func (l *looker) lost(root *os.Root, m *procfs.Mount, carried map[fileID]bool) (names []string, more int) {
	at := strings.TrimPrefix(m.Target, "/")
	if at == "" {
		at = "."
	}
	looked := 0
	_ = fs.WalkDir(root.FS(), at, func(name string, e fs.DirEntry, err error) error {
		if looked++; looked > maxWalk {
			return fs.SkipAll
		}
		if err != nil || name == at {
			return nil
		}
		info, err := e.Info()
		if err != nil {
			return nil
		}
		st, ok := info.Sys().(*syscall.Stat_t)
		if !ok || (procfs.Dev{Major: unix.Major(st.Dev), Minor: unix.Minor(st.Dev)}) != m.Dev {
			return skip(e) // another mount
		}
		switch {
		case e.IsDir() && l.leadsToMount("/"+name):
			return nil
		case madeByRuntime(m.Target, info.Mode()), carried[fileID{st.Dev, st.Ino}]:
			return nil
		}
		if len(names) < maxNamed {
			names = append(names, path.Clean(strings.TrimPrefix(name, at+"/")))
		} else {
			more++
		}
		return skip(e) // with everything below it
	})
	return names, more
}

func skip(e fs.DirEntry) error {
	if e.IsDir() {
		return fs.SkipDir
	}
	return nil
}

// leadsToMount: something is mounted at or below the directory, so that a
// runtime makes it.
func (l *looker) leadsToMount(dir string) bool {
	for _, m := range l.mounts {
		if m.Target == dir || strings.HasPrefix(m.Target, dir+"/") {
			return true
		}
	}
	return false
}

// madeByRuntime: /dev has devices and links in every container. Sockets are the
// socket subsystem's.
func madeByRuntime(mount string, mode fs.FileMode) bool {
	return mode&fs.ModeSocket != 0 || mount == "/dev" && mode&(fs.ModeDevice|fs.ModeSymlink) != 0
}
