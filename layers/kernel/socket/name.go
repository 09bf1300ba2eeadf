// SPDX-License-Identifier: Apache-2.0

package socket

import (
	"errors"
	"fmt"
	"io/fs"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/io-mig/mig/layers/kernel/target"
	"github.com/io-mig/mig/layers/kernel/tracer"
	"github.com/io-mig/mig/spec/state"
)

// bindFile binds a name in the file system. The file of the checkpoint is
// there, but leads to no socket: it is replaced by one with the same owner and
// permissions, as a server does that starts again. Anything else in its place
// is left alone.
func (b *builder) bindFile(p *target.Plan, fd int, m *state.Socket) error {
	name := strings.TrimRight(string(m.Local), "\x00")
	path := name
	if m.File.Directory != "" {
		// The working directory is set later by the file subsystem.
		p.Call(tracer.Syscall(unix.SYS_CHDIR, p.PutString(m.File.Directory)))
		path = m.File.Directory + "/" + name
	}
	var st unix.Stat_t
	err := target.Lstat(b.task.Pid, path, &st)
	there := err == nil
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("look at %s: %w", path, err)
	}
	at := p.PutString(name)
	if m.File.Unlinked {
		b.bindWithoutFile(p, fd, m, at, name, there)
		return nil
	}
	if there && st.Mode&unix.S_IFMT != unix.S_IFSOCK {
		return fmt.Errorf("%s is not a socket now: it is left alone", path)
	}
	if there {
		p.Call(tracer.Syscall(unix.SYS_UNLINK, at))
	}
	p.Call(bind(p, fd, m.Family, m.Local))
	mode := m.File.Mode
	if b.allowed.AnyUser() {
		p.Quiet(tracer.Syscall(unix.SYS_LCHOWN, at, uint64(m.File.Uid), uint64(m.File.Gid)))
	} else {
		mode &= 0o777
	}
	p.Call(tracer.Syscall(unix.SYS_CHMOD, at, uint64(mode)))
	return nil
}

// bindWithoutFile binds a name that leads to the socket no longer. What has
// the name by now is put aside for the moment.
func (b *builder) bindWithoutFile(p *target.Plan, fd int, m *state.Socket, at uint64, name string, there bool) {
	aside := p.PutString(name + ".mig-aside")
	if there {
		p.Call(tracer.Syscall(unix.SYS_RENAME, at, aside))
	}
	p.Call(bind(p, fd, m.Family, m.Local))
	p.Call(tracer.Syscall(unix.SYS_UNLINK, at))
	if there {
		p.Call(tracer.Syscall(unix.SYS_RENAME, aside, at))
	}
}
