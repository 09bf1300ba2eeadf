// SPDX-License-Identifier: Apache-2.0

package ipc

import (
	"errors"
	"io/fs"

	"github.com/io-mig/mig/layers/kernel/procfs"
)

// objects are what an IPC namespace holds.
type objects struct {
	shm   []procfs.SysVShm
	sem   []procfs.SysVSem
	msg   []procfs.SysVMsg
	posix []posixQueue
}

// list lists what the calling thread's namespace has.
func list() (objects, error) {
	host := procfs.Host()
	var o objects
	var errs [3]error
	o.shm, errs[0] = host.SysVShm()
	o.sem, errs[1] = host.SysVSem()
	o.msg, errs[2] = host.SysVMsg()
	for _, err := range errs {
		if err != nil && !errors.Is(err, fs.ErrNotExist) { // a kernel without them
			return o, err
		}
	}
	var err error
	o.posix, err = posixQueues()
	return o, err
}
