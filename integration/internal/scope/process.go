// SPDX-License-Identifier: Apache-2.0

package scope

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// process is one process of the scope and how it looked when found.
type process struct {
	pid   int
	what  string // command line, or the name in brackets where it has none
	state string // letter of proc(5); Z is a zombie that nobody reaps
}

func (p process) String() string { return fmt.Sprintf("%d (%s) %s", p.pid, p.state, p.what) }

// processes finds every process of the scope but this one and keep's.
func (s Scope) processes(keep []int) []process {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil
	}
	var found []process
	for _, entry := range entries {
		pid, err := strconv.Atoi(entry.Name())
		if err != nil || pid == os.Getpid() || slices.Contains(keep, pid) {
			continue
		}
		if p, ok := s.process(pid); ok {
			found = append(found, p)
		}
	}
	return found
}

// process reports whether pid belongs to the scope: by the mark that shims
// inherit, by the cgroup of a container, or by a path on the command line.
// A process that ends meanwhile does not.
func (s Scope) process(pid int) (process, bool) {
	dir := filepath.Join("/proc", strconv.Itoa(pid))
	cmdline, _ := os.ReadFile(filepath.Join(dir, "cmdline"))
	environ, _ := os.ReadFile(filepath.Join(dir, "environ"))
	cgroup, _ := os.ReadFile(filepath.Join(dir, "cgroup"))
	marked := slices.Contains(strings.Split(string(environ), "\x00"), s.Mark())
	if !marked && !bytes.Contains(cmdline, []byte(s.Name)) && !bytes.Contains(cgroup, []byte("/"+s.Name+"/")) {
		return process{}, false
	}
	state, name := "?", ""
	if status, err := os.ReadFile(filepath.Join(dir, "status")); err == nil {
		for line := range strings.Lines(string(status)) {
			key, value, _ := strings.Cut(strings.TrimSpace(line), ":\t")
			switch key {
			case "Name":
				name = value
			case "State":
				state = value[:1]
			}
		}
	}
	what := strings.TrimSpace(strings.ReplaceAll(string(cmdline), "\x00", " "))
	if what == "" {
		what = "[" + name + "]"
	}
	return process{pid: pid, what: what, state: state}, true
}
