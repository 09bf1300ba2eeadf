// SPDX-License-Identifier: Apache-2.0

package rootfs

import (
	"fmt"
	"os"
	"path"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/io-mig/mig/layers/kernel/target"
)

// volumes are the bind mounts of a spec by what becomes of them in a move.
type volumes struct {
	// copied are destinations whose content travels.
	copied []string
	// refused are writable ones of which nothing is known.
	refused []*refusal
}

// listOf reads an option that is a list of paths.
func listOf(options map[string]string, name string) ([]string, error) {
	var out []string
	for part := range strings.SplitSeq(options[name], ",") {
		if part == "" {
			continue
		}
		if !path.IsAbs(part) {
			return nil, fmt.Errorf("option %s: %q is not an absolute path in the container", name, part)
		}
		out = append(out, path.Clean(part))
	}
	return out, nil
}

// sortVolumes decides what becomes of the bind mounts. What is read-only the
// other host has, or cannot make the container.
func sortVolumes(files *target.Files, options map[string]string) (*volumes, error) {
	copied, err := listOf(options, OptionCopy)
	if err != nil {
		return nil, err
	}
	shared, err := listOf(options, OptionShared)
	if err != nil {
		return nil, err
	}
	v := &volumes{}
	known := map[string]bool{}
	for i := range files.Mounts {
		m := &files.Mounts[i]
		if !m.Bind() {
			continue
		}
		at := path.Clean(m.Destination)
		known[at] = true
		switch what := fmt.Sprintf("volume %s (%s)", at, m.Source); {
		case slices.Contains(copied, at) && !isDirectory(m.Source):
			v.refused = append(v.refused, &refusal{what, "it is no directory, and only the content of directories is copied", "mount its directory, or choose " + OptionShared + "=" + at})
		case slices.Contains(copied, at):
			v.copied = append(v.copied, at)
		case slices.Contains(shared, at), m.ReadOnly():
		default:
			v.refused = append(v.refused, &refusal{
				what, "the container may write to it, and its content stays on this host",
				fmt.Sprintf("choose %s=%s to take the content along, or %s=%s if the other host has the same storage", OptionCopy, at, OptionShared, at),
			})
		}
	}
	for _, at := range append(copied, shared...) {
		if !known[at] {
			v.refused = append(v.refused, &refusal{"volume " + at, "the container's spec has no bind mount there", "look at the mount points of its spec"})
		}
	}
	return v, nil
}

func isDirectory(source string) bool {
	info, err := os.Stat(source)
	return err == nil && info.IsDir()
}

// markName is the attribute of a volume's root while its content arrives: what a
// move that failed has left may be replaced.
const markName = "trusted.mig.incomplete"

// takes decides whether a volume's directory may be written to: it is empty, has
// a mark, or may be replaced. It marks it.
func takes(dir *os.File, replace bool) error {
	at := fmt.Sprintf("/proc/self/fd/%d", dir.Fd())
	if _, err := unix.Getxattr(at, markName, nil); err == nil || replace {
		return mark(at)
	}
	list, err := dir.Readdirnames(3)
	if _, err := dir.Seek(0, 0); err != nil {
		return err
	}
	switch {
	case len(list) == 0, len(list) == 1 && list[0] == "lost+found":
		return mark(at)
	case err != nil:
		return err
	}
	return fmt.Errorf("its directory is not empty on this host (%s, ...): empty it, or choose %s=%s", list[0], OptionContent, ContentReplace)
}

func mark(at string) error {
	err := unix.Setxattr(at, markName, []byte{1}, 0)
	if err == unix.ENOTSUP {
		return nil // a move that fails leaves files that nobody replaces by itself
	}
	return os.NewSyscallError("setxattr "+markName, err)
}

func unmark(dir *os.File) {
	_ = unix.Removexattr(fmt.Sprintf("/proc/self/fd/%d", dir.Fd()), markName)
}
