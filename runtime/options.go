// SPDX-License-Identifier: Apache-2.0

package runtime

import (
	"os"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// CreateOptions says what to create. Spec and the files stay the caller's: the
// spec is copied, and the files may be closed as soon as Create returns.
type CreateOptions struct {
	// ID names the container: letters, digits, "_", "+", "-" and "." only.
	ID string
	// Bundle is the directory that relative paths in the spec (root, bind
	// sources) start from, whatever the working directory of this process
	// is. It must be absolute. Hooks find it in the OCI state.
	Bundle string
	// Root is the directory of state directories; this container's is
	// Root/ID. It must be absolute and is created if it is missing. It should
	// not be below this program's own directory: libcontainer then cannot
	// protect the executable by an overlay mount (CVE-2019-5736) and copies
	// it, which takes a start 10 ms for a binary of 15 MB.
	Root string
	// Spec is the complete OCI configuration.
	Spec *specs.Spec
	// Stdio is what the init process gets as descriptors 0 to 2.
	Stdio Stdio
	// SystemdCgroup reads Spec.Linux.CgroupsPath as "slice:prefix:name" and
	// asks systemd for the cgroup.
	SystemdCgroup bool
	// NoPivotRoot uses MS_MOVE and chroot where pivot_root(2) cannot work
	// (the root filesystem is on the initramfs).
	NoPivotRoot bool
	// NoNewKeyring lets the container share this process's session keyring.
	NoNewKeyring bool
	// PidFile, if set, receives the init's pid in decimal, by rename.
	PidFile string
	// Frame, if set, puts a frame program in the place of the spec's program.
	Frame *Frame
}

// Stdio is the standard input and output of a process. Nil files become
// /dev/null. The files stay the caller's and may be closed once Create or Exec
// has returned.
type Stdio struct {
	Stdin, Stdout, Stderr *os.File
	// Terminal gives the process a new pseudoterminal, made in the
	// container's own devpts, as its controlling terminal. The three files
	// above are ignored then.
	Terminal bool
	// ConsoleSocket, if set, is a connected AF_UNIX socket that receives the
	// terminal's master side (SCM_RIGHTS, as runc's --console-socket). If it
	// is nil, the master is kept and given out by Process.Console.
	ConsoleSocket *os.File
}

// Frame is the tiny program that an engine turns into the processes of an
// image. The container around it is built from the full spec, its seccomp
// filter included; only the process's user (0 of the container's user
// namespace), its capabilities and a few resource limits are widened, and what
// the spec asks for is told by Container.TargetProcess.
type Frame struct {
	// ELF is a sealed memfd, executable (MFD_EXEC), with the program. The
	// program finds it as descriptor 3.
	ELF *os.File
	// Socket is the program's end of a socket pair for descriptors: number 4.
	Socket *os.File
}
