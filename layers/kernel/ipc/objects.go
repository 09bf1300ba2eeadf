// SPDX-License-Identifier: Apache-2.0

package ipc

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"

	"github.com/io-mig/mig/layers/kernel/procfs"
	"github.com/io-mig/mig/layers/kernel/target"
)

// object is something in an IPC namespace, and how to be rid of it.
type object struct{ what, remedy string }

// objects lists what is in the IPC namespace of a process.
func objects(pid int) ([]object, error) {
	t := procfs.Host().Process(pid)
	list, err := queues(t)
	if err != nil {
		return nil, err
	}
	err = target.InNamespace(t.Path("ns/ipc"), func() error {
		sysv, err := systemV()
		list = append(sysv, list...)
		return err
	})
	return list, err
}

// systemV lists what the calling thread's namespace has.
func systemV() (list []object, err error) {
	host := procfs.Host()
	shm, err1 := host.SysVShm()
	sem, err2 := host.SysVSem()
	msg, err3 := host.SysVMsg()
	for _, err := range []error{err1, err2, err3} {
		if err != nil && !errors.Is(err, fs.ErrNotExist) { // a kernel without them
			return nil, err
		}
	}
	for _, o := range shm {
		list = append(list, object{fmt.Sprintf("System V shared memory %d (key %#x, %d bytes)", o.ID, uint32(o.Key), o.Size), fmt.Sprintf("ipcrm -m %d", o.ID)})
	}
	for _, o := range sem {
		list = append(list, object{fmt.Sprintf("System V semaphore set %d (key %#x)", o.ID, uint32(o.Key)), fmt.Sprintf("ipcrm -s %d", o.ID)})
	}
	for _, o := range msg {
		list = append(list, object{fmt.Sprintf("System V message queue %d (key %#x, %d messages)", o.ID, uint32(o.Key), o.Messages), fmt.Sprintf("ipcrm -q %d", o.ID)})
	}
	return list, nil
}

// queues lists the POSIX message queues where the container has them mounted:
// elsewhere they cannot be seen.
func queues(t procfs.Task) ([]object, error) {
	mounts, err := t.Mountinfo()
	if err != nil {
		return nil, err
	}
	for _, m := range mounts {
		if m.FSType != "mqueue" {
			continue
		}
		// The container may replace any directory by a link meanwhile.
		root, err := os.OpenRoot(t.Path("root"))
		if err != nil {
			return nil, err
		}
		defer root.Close()
		names, err := fs.ReadDir(root.FS(), strings.TrimPrefix(m.Target, "/"))
		if err != nil {
			return nil, fmt.Errorf("list the message queues at %s: %w", m.Target, err)
		}
		var list []object
		for _, n := range names {
			list = append(list, object{"POSIX message queue /" + n.Name(), "rm " + m.Target + "/" + n.Name()})
		}
		return list, nil
	}
	return nil, nil
}
