// SPDX-License-Identifier: Apache-2.0

// Package victim is the program that the benchmark checkpoints, and the hand
// on it: the program is driven through its own memory, so that it needs no
// descriptor and is driven the same way before and after a restore.
package victim

import (
	_ "embed"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
)

//go:embed src/victim.c
var source []byte

// Build compiles the program, static, into dir and returns its path.
func Build(dir string) (string, error) {
	c, out := filepath.Join(dir, "victim.c"), filepath.Join(dir, "victim")
	if err := os.WriteFile(c, source, 0o600); err != nil {
		return "", err
	}
	cmd := exec.Command("gcc", "-O2", "-Wall", "-Werror", "-static", "-pthread", "-o", out, c)
	if text, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("compile the workload: %w\n%s", err, text)
	}
	return out, nil
}

// Config is what a victim is started with.
type Config struct {
	Megabytes int  // of memory that does not compress
	Threads   int  // that sleep in a futex, beside the first
	DirtyMBps int  // megabytes of pages written to per second
	Spin      bool // look at the clocks without a pause
	Nap       bool // look at them rarely, for so many processes that looking every millisecond is too much work

	Processes int  // 0 is 1; each has so many megabytes
	Shared    bool // or they share them
	Empty     bool // the megabytes are mapped and not touched
}

// Args is the command line; the program is at path.
func (c Config) Args(path string) []string {
	return []string{
		path, strconv.Itoa(c.Megabytes), strconv.Itoa(c.Threads), strconv.Itoa(c.DirtyMBps), c.looks(),
		strconv.Itoa(max(1, c.Processes)), flag(c.Shared), flag(c.Empty),
	}
}

// looks says how long the pause between two looks is.
func (c Config) looks() string {
	if c.Nap {
		return "2"
	}
	return flag(c.Spin)
}

func flag(b bool) string {
	if b {
		return "1"
	}
	return "0"
}

// Bytes is the size of the data of one process.
func (c Config) Bytes() int { return c.Megabytes << 20 }
