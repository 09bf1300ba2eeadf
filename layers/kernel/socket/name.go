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
func (b *builder) bindFile(p *target.Plan, fd int, a *arrival) error {
	m := a.msg
	name, path, st, err := b.approach(p, m)
	if err != nil {
		return err
	}
	there := st != nil
	at := p.PutString(name)
	if m.File.Unlinked {
		b.bindWithoutFile(p, fd, a, at, name, there)
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

// approach takes the process to where a socket's name is valid. It returns the name,
// its path for messages, and what is there; nil if nothing is.
func (b *builder) approach(p *target.Plan, m *state.Socket) (name, path string, st *unix.Stat_t, err error) {
	name = strings.TrimRight(string(m.Local), "\x00")
	path = name
	if m.File.Directory != "" {
		// The working directory is set later by the file subsystem.
		p.Call(tracer.Syscall(unix.SYS_CHDIR, p.PutString(m.File.Directory)))
		path = m.File.Directory + "/" + name
	}
	st = &unix.Stat_t{}
	err = target.Lstat(b.task.Pid, path, st)
	if errors.Is(err, fs.ErrNotExist) {
		return name, path, nil, nil
	}
	if err != nil {
		return "", "", nil, fmt.Errorf("look at %s: %w", path, err)
	}
	return name, path, st, nil
}

// bindWithoutFile binds a name that leads to the socket no longer. What has
// the name by now is put aside for the moment. One that has messages to receive
// keeps a path until it has them.
func (b *builder) bindWithoutFile(p *target.Plan, fd int, a *arrival, at uint64, name string, there bool) {
	m := a.msg
	aside := p.PutString(name + ".mig-aside")
	if there {
		p.Call(tracer.Syscall(unix.SYS_RENAME, at, aside))
	}
	p.Call(bind(p, fd, m.Family, m.Local))
	if len(a.unread) > 0 {
		a.hidden = name + ".mig-unread"
		p.Call(tracer.Syscall(unix.SYS_RENAME, at, p.PutString(a.hidden)))
	} else {
		p.Call(tracer.Syscall(unix.SYS_UNLINK, at))
	}
	if there {
		p.Call(tracer.Syscall(unix.SYS_RENAME, aside, at))
	}
}
