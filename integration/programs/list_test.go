// SPDX-License-Identifier: Apache-2.0

package programs

import (
	"embed"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
)

//go:embed src
var sources embed.FS

// program is one entry of what the programs' binary lists.
type program struct {
	name, about string
	needs       needs
	refused     string // what the refusal of its checkpoint must say; "": it is restored
}

// needs are the bits of src/programs.h.
type needs int

const (
	needsRoot needs = 1 << iota
	needsInitialUserns
	needsAllCaps
	changesFiles
	needsHugePages
	needsCgroups
	needsHugeSegments
	needsHugeMount
)

// build compiles all programs into one static binary in dir.
func build(dir string) (string, error) {
	src := filepath.Join(dir, "src")
	if err := os.CopyFS(dir, sources); err != nil {
		return "", err
	}
	files, err := fs.Glob(sources, "src/*.c")
	if err != nil {
		return "", err
	}
	out := filepath.Join(dir, "programs")
	args := []string{"-O1", "-g", "-Wall", "-Wextra", "-Werror", "-static", "-pthread", "-o", out}
	for _, f := range files {
		args = append(args, filepath.Join(src, filepath.Base(f)))
	}
	if text, err := exec.Command("gcc", append(args, "-lrt")...).CombinedOutput(); err != nil {
		return "", fmt.Errorf("compile the programs: %w\n%s", err, text)
	}
	return out, nil
}

// list asks the binary what there is.
func list(binary string) ([]program, error) {
	out, err := exec.Command(binary, "--list").Output()
	if err != nil {
		return nil, err
	}
	var all []program
	for line := range strings.Lines(string(out)) {
		fields := strings.Split(strings.TrimSuffix(line, "\n"), "\t")
		if len(fields) != 4 {
			return nil, fmt.Errorf("the programs list %q", line)
		}
		n, err := strconv.Atoi(fields[1])
		if err != nil {
			return nil, err
		}
		all = append(all, program{name: fields[0], needs: needs(n), refused: fields[2], about: fields[3]})
	}
	return all, nil
}

// user is as whom a program runs.
type user struct {
	name string
	uid  uint32
	// mapped: in a user namespace whose ids begin at hostID.
	mapped bool
}

// hostID is the first id on the host of the user namespaces here.
const hostID = 200000

var (
	asRoot   = user{name: "root"}
	asUser   = user{name: "user", uid: 1000}
	asMapped = user{name: "userns", mapped: true}
)

// fits reports whether a program can run as u.
func (p program) fits(u user) bool {
	switch {
	case p.needs&needsRoot != 0:
		return u == asRoot
	case p.needs&needsInitialUserns != 0:
		return !u.mapped
	}
	return true
}
