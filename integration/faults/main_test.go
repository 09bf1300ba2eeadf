// SPDX-License-Identifier: Apache-2.0

package faults

import (
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"

	"github.com/io-mig/mig/integration/internal/image"
	"github.com/io-mig/mig/integration/internal/itest"
)

func TestMain(m *testing.M) {
	code := 1
	defer func() { os.Exit(code) }()
	dir, err := os.MkdirTemp("", "migfaults")
	if err != nil {
		panic(err)
	}
	defer os.RemoveAll(dir)
	built.dir = dir
	code = itest.Run(m)
}

// built are the programs that the tests compile, once each.
var built struct {
	sync.Mutex
	dir  string
	errs map[string]error
}

// output stands for the path of what is built.
const output = "OUTPUT"

// build runs a compiler in dir, once for each name.
func build(t *testing.T, name, dir string, command ...string) string {
	t.Helper()
	built.Lock()
	defer built.Unlock()
	path := filepath.Join(built.dir, name)
	err, done := built.errs[name]
	if !done {
		for i, word := range command {
			if word == output {
				command[i] = path
			}
		}
		cmd := exec.Command(command[0], command[1:]...)
		cmd.Dir = dir
		out, runErr := cmd.CombinedOutput()
		if runErr != nil {
			err = &buildError{name, runErr, out}
		}
		if built.errs == nil {
			built.errs = map[string]error{}
		}
		built.errs[name] = err
	}
	if err != nil {
		t.Fatal(err)
	}
	return path
}

type buildError struct {
	name string
	err  error
	out  []byte
}

func (e *buildError) Error() string {
	return "build " + e.name + ": " + e.err.Error() + "\n" + string(e.out)
}

// victimImage holds the workload of testdata/victim.c.
func victimImage(t *testing.T) image.Image {
	t.Helper()
	source, err := filepath.Abs("testdata/victim.c")
	if err != nil {
		t.Fatal(err)
	}
	program := build(t, "victim", "", "gcc", "-O2", "-Wall", "-static", "-pthread", source, "-o", output)
	return image.Image{Name: "mig.test/victim:1", Command: []string{"/victim", "4"}, Extra: map[string]string{"/victim": program}}
}
