// SPDX-License-Identifier: Apache-2.0

package engine

import (
	"errors"

	"github.com/io-mig/mig/layers/kernel"
	"github.com/io-mig/mig/layers/kernel/cgroup"
	"github.com/io-mig/mig/layers/kernel/clock"
	"github.com/io-mig/mig/layers/kernel/cpu"
	"github.com/io-mig/mig/layers/kernel/credential"
	"github.com/io-mig/mig/layers/kernel/event"
	"github.com/io-mig/mig/layers/kernel/file"
	"github.com/io-mig/mig/layers/kernel/ipc"
	"github.com/io-mig/mig/layers/kernel/memory"
	"github.com/io-mig/mig/layers/kernel/network"
	"github.com/io-mig/mig/layers/kernel/pipe"
	"github.com/io-mig/mig/layers/kernel/rootfs"
	"github.com/io-mig/mig/layers/kernel/signal"
	"github.com/io-mig/mig/layers/kernel/socket"
	"github.com/io-mig/mig/layers/kernel/target"
	"github.com/io-mig/mig/layers/kernel/task"
	"github.com/io-mig/mig/layers/kernel/timer"
	"github.com/io-mig/mig/layers/kernel/tty"
	"github.com/io-mig/mig/layers/kernel/uts"
	"github.com/io-mig/mig/layers/medium"
	"github.com/io-mig/mig/layers/medium/directory"
	"github.com/io-mig/mig/layers/request/address"
)

// Subsystems returns the kernel subsystems of this version, in the order in
// which they export and import: clocks, which the first process must have before
// it makes others, processes before all that is theirs, file
// systems and IPC objects before what opens and maps them, mappings before what lies in them, tables
// before what they name, targets before the epoll that watches them, credentials
// after all that needs a privilege, registers last.
func Subsystems() (*kernel.Manager, error) {
	m := &kernel.Manager{}
	for _, e := range []kernel.Entry{
		{Name: clock.Name, Version: 1, New: func(env target.Env) kernel.Subsystem { return clock.New(env) }},
		{Name: cgroup.Name, Version: 1, Needed: cgroup.Needed, New: func(env target.Env) kernel.Subsystem { return cgroup.New(env) }},
		{Name: task.Name, Version: 1, New: func(env target.Env) kernel.Subsystem { return task.New(env) }},
		{Name: uts.Name, Version: 1, New: func(env target.Env) kernel.Subsystem { return uts.New(env) }},
		{Name: network.Name, Version: 1, New: func(env target.Env) kernel.Subsystem { return network.New(env) }},
		{Name: ipc.Name, Version: 1, New: func(env target.Env) kernel.Subsystem { return ipc.New(env) }},
		{Name: rootfs.Name, Version: 1, New: func(env target.Env) kernel.Subsystem { return rootfs.New(env) }},
		{Name: memory.Name, Version: 1, New: func(env target.Env) kernel.Subsystem { return memory.New(env) }},
		{Name: file.Name, Version: 1, New: func(env target.Env) kernel.Subsystem { return file.New(env) }},
		{Name: tty.Name, Version: 1, New: func(env target.Env) kernel.Subsystem { return tty.New(env) }},
		{Name: pipe.Name, Version: 1, New: func(env target.Env) kernel.Subsystem { return pipe.New(env) }},
		{Name: socket.Name, Version: 1, New: func(env target.Env) kernel.Subsystem { return socket.New(env) }},
		{Name: event.Name, Version: 1, New: func(env target.Env) kernel.Subsystem { return event.New(env) }},
		{Name: signal.Name, Version: 1, New: func(env target.Env) kernel.Subsystem { return signal.New(env) }},
		{Name: timer.Name, Version: 1, New: func(env target.Env) kernel.Subsystem { return timer.New(env) }},
		{Name: credential.Name, Version: 1, New: func(env target.Env) kernel.Subsystem { return credential.New(env) }},
		{Name: cpu.Name, Version: 1, New: func(env target.Env) kernel.Subsystem { return cpu.New(env) }},
	} {
		if err := m.Insert(e); err != nil {
			return nil, err
		}
	}
	return m, nil
}

// Media returns the media of this version.
func Media() (*medium.Manager, error) {
	m := &medium.Manager{}
	return m, errors.Join(
		m.Insert(medium.PathScheme, directory.Open),
		m.Insert(address.MoveScheme, openDeparture),
		m.Insert(address.IncomingScheme, openArrival),
	)
}
