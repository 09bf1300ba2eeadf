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

// Process is one process of the scope and how it looked when found.
type Process struct {
	Pid  int
	Name string // as execve(2) or the process set it, 15 bytes at most
	// Contained is whether it is in a container's cgroup.
	Contained bool

	what  string // command line, or the name in brackets where it has none
	state string // letter of proc(5); Z is a zombie that nobody reaps
}

func (p Process) String() string { return fmt.Sprintf("%d (%s) %s", p.Pid, p.state, p.what) }

// WaitsIn is where in the kernel each of the process's threads waits (wchan of
// proc(5)), a line for all.
func (p Process) WaitsIn() string {
	files, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/wchan", p.Pid))
	var places []string
	for _, file := range files {
		place, _ := os.ReadFile(file)
		places = append(places, string(place))
	}
	return strings.Join(places, " ")
}

// Network names the process's network namespace; empty if it has ended.
func (p Process) Network() string {
	name, _ := os.Readlink(fmt.Sprintf("/proc/%d/ns/net", p.Pid))
	return name
}

// Processes finds every process of the scope but this one.
func (s Scope) Processes() []Process { return s.processes(nil) }

// processes finds every process of the scope but this one and keep's.
func (s Scope) processes(keep []int) []Process {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil
	}
	var found []Process
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
func (s Scope) process(pid int) (Process, bool) {
	dir := filepath.Join("/proc", strconv.Itoa(pid))
	cmdline, _ := os.ReadFile(filepath.Join(dir, "cmdline"))
	environ, _ := os.ReadFile(filepath.Join(dir, "environ"))
	cgroup, _ := os.ReadFile(filepath.Join(dir, "cgroup"))
	marked := slices.Contains(strings.Split(string(environ), "\x00"), s.Mark())
	contained := bytes.Contains(cgroup, []byte("/"+s.Name+"/"))
	if !marked && !bytes.Contains(cmdline, []byte(s.Name)) && !contained {
		return Process{}, false
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
	return Process{Pid: pid, Name: name, Contained: contained, what: what, state: state}, true
}
