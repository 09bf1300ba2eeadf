// SPDX-License-Identifier: Apache-2.0

package request

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// ProgramName is the file of the engine's program.
const ProgramName = "mig-engine"

// Program is the engine's program, held open: what is run is the file that was
// there when it was opened, whatever is installed in its place later. So a
// supervisor of many months' life and its engines stay of one build.
type Program struct {
	path string
	file *os.File
}

// OpenProgram opens the engine's program that lies beside this process's own. It
// is never looked for anywhere else: it runs with all privileges, and whoever
// can write to that directory has chosen the running program, too.
func OpenProgram() (*Program, error) {
	self, err := os.Readlink("/proc/self/exe")
	if err != nil {
		return nil, fmt.Errorf("directory of this program: %w", err)
	}
	// See proc_pid_exe(5): a file that was replaced in the meantime.
	return openProgram(filepath.Join(filepath.Dir(strings.TrimSuffix(self, " (deleted)")), ProgramName))
}

func openProgram(path string) (*Program, error) {
	fd, err := unix.Open(path, unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		err := &os.PathError{Op: "open", Path: path, Err: err}
		return nil, fmt.Errorf("the engine's program: %w: install it beside the shim's", err)
	}
	p := &Program{path: path, file: os.NewFile(uintptr(fd), path)}
	st, err := p.file.Stat()
	if err == nil && (!st.Mode().IsRegular() || st.Mode()&0o111 == 0) {
		err = fmt.Errorf("the engine's program %s is not an executable file: install it beside the shim's", path)
	}
	if err != nil {
		return nil, errors.Join(err, p.Close())
	}
	return p, nil
}

// name is a path under which the kernel finds the file, for children, too: their
// own descriptors may have been rearranged.
func (p *Program) name() string { return fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), p.file.Fd()) }

// Close lets the file go. Processes that run it go on.
func (p *Program) Close() error { return p.file.Close() }
