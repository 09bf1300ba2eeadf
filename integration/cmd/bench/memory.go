// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

// field reads a size in kB out of a file of /proc/PID and returns MB (2^20).
func field(pid int, file, name string) (float64, error) {
	path := filepath.Join("/proc", strconv.Itoa(pid), file)
	raw, err := os.ReadFile(path)
	if err != nil {
		return 0, err
	}
	for s := bufio.NewScanner(bytes.NewReader(raw)); s.Scan(); {
		if value, ok := strings.CutPrefix(s.Text(), name+":"); ok {
			kb, err := strconv.ParseFloat(strings.TrimSuffix(strings.TrimSpace(value), " kB"), 64)
			return kb / 1024, err
		}
	}
	return 0, fmt.Errorf("%s has no %s", path, name)
}

// highWater is the most memory that was ever resident.
func highWater(pid int) (float64, error) { return field(pid, "status", "VmHWM") }

// findShim finds the server process of a shim by its command line; 0 if there
// is none. The short-lived `start` is not a server.
func findShim(program, id string) int {
	dirs, _ := filepath.Glob("/proc/[0-9]*")
	for _, dir := range dirs {
		raw, _ := os.ReadFile(filepath.Join(dir, "cmdline"))
		args := strings.Split(strings.TrimRight(string(raw), "\x00"), "\x00")
		if filepath.Base(args[0]) != program || slices.Contains(args, "start") || slices.Contains(args, "delete") {
			continue
		}
		if at := slices.Index(args, "-id"); at >= 0 && at+1 < len(args) && args[at+1] == id {
			pid, _ := strconv.Atoi(filepath.Base(dir))
			return pid
		}
	}
	return 0
}

// watch follows the memory of a process's children that are engines.
type watch struct {
	stop chan struct{}
	done chan struct{}
	most float64
	seen bool
}

// watchEvery is how often it looks. VmHWM only grows, so that the last look
// misses at most what came in this time.
const watchEvery = time.Millisecond

func watchChildren(pid int) *watch {
	w := &watch{stop: make(chan struct{}), done: make(chan struct{})}
	go func() {
		defer close(w.done)
		for pid > 0 {
			select {
			case <-w.stop:
				return
			case <-time.After(watchEvery):
				w.look(pid)
			}
		}
	}()
	return w
}

func (w *watch) look(pid int) {
	files, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pid))
	for _, file := range files {
		raw, _ := os.ReadFile(file)
		for child := range strings.FieldsSeq(string(raw)) {
			n, _ := strconv.Atoi(child)
			cmdline, _ := os.ReadFile(filepath.Join("/proc", child, "cmdline"))
			if program, _, _ := strings.Cut(string(cmdline), "\x00"); filepath.Base(program) != "mig-engine" {
				continue
			}
			if most, err := highWater(n); err == nil {
				w.most, w.seen = max(w.most, most), true
			}
		}
	}
}

// end stops the watch and returns the most that any engine had, in MB.
func (w *watch) end() (float64, error) {
	close(w.stop)
	<-w.done
	if !w.seen {
		return 0, fmt.Errorf("no engine process was seen")
	}
	return w.most, nil
}
