// SPDX-License-Identifier: Apache-2.0

package ipc

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"strconv"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Values of include/uapi/linux/{ipc,shm,sem,msg}.h.
const (
	ipcRemove  = 0
	ipcSet     = 1
	ipcStat    = 2
	ipcCreate  = 0o1000
	ipcExcl    = 0o2000
	ipcNoWait  = 0o4000
	semGetAll  = 13
	semSetAll  = 17
	shmLock    = 11
	shmRemoved = 0o1000 // SHM_DEST of shm_perm.mode
	shmLocked  = 0o2000 // SHM_LOCKED
	shmHuge    = 0o4000 // SHM_HUGETLB
	msgCopy    = 0o40000
	msgNoError = 0o10000

	permissions = 0o777

	pageSize = 4096
)

// Offsets in struct ipc64_perm, with which struct shmid64_ds, semid64_ds and
// msqid64_ds begin, and in the latter (include/uapi/asm-generic).
const (
	permUID  = 4
	permGID  = 8
	permMode = 20
	msgMax   = 88 // msg_qbytes
	dsSize   = 128
)

// kind is one of the three kinds of System V object.
type kind struct {
	name string
	// control is shmctl, semctl or msgctl; next is the file that says what id
	// the next object gets.
	control uintptr
	next    string
}

var (
	segments   = &kind{"System V shared memory", unix.SYS_SHMCTL, "/proc/sys/kernel/shm_next_id"}
	semaphores = &kind{"System V semaphore set", unix.SYS_SEMCTL, "/proc/sys/kernel/sem_next_id"}
	queues     = &kind{"System V message queue", unix.SYS_MSGCTL, "/proc/sys/kernel/msg_next_id"}
)

// call calls shmctl, semctl or msgctl in the calling thread's namespace. The
// buffer, which may be nil, is the last argument of either form.
func (k *kind) call(id int32, cmd int, buf []byte) error {
	var at unsafe.Pointer
	if len(buf) > 0 {
		at = unsafe.Pointer(&buf[0])
	}
	var e unix.Errno
	if k.control == unix.SYS_SEMCTL {
		_, _, e = unix.Syscall6(k.control, uintptr(id), 0, uintptr(cmd), uintptr(at), 0, 0)
	} else {
		_, _, e = unix.Syscall(k.control, uintptr(id), uintptr(cmd), uintptr(at))
	}
	if e != 0 {
		return fmt.Errorf("%s %d: control %d: %w", k.name, id, cmd, e)
	}
	return nil
}

// setNext makes the next object of the kind get an id. Only the frame, which is
// stopped, makes objects in the namespace.
func (k *kind) setNext(id int32) error {
	if err := os.WriteFile(k.next, []byte(strconv.Itoa(int(id))), 0); err != nil {
		return fmt.Errorf("choose the id of the next %s (the kernel needs CONFIG_CHECKPOINT_RESTORE): %w", k.name, err)
	}
	return nil
}

// set changes the owner, in the engine's user namespace, and the mode.
func (k *kind) set(id int32, uid, gid, mode uint32) error {
	ds := make([]byte, dsSize)
	if err := k.call(id, ipcStat, ds); err != nil {
		return err
	}
	binary.LittleEndian.PutUint32(ds[permUID:], uid)
	binary.LittleEndian.PutUint32(ds[permGID:], gid)
	binary.LittleEndian.PutUint32(ds[permMode:], mode&permissions)
	return k.call(id, ipcSet, ds)
}

// maxBytes reads msg_qbytes.
func maxBytes(id int32) (uint64, error) {
	ds := make([]byte, dsSize)
	err := queues.call(id, ipcStat, ds)
	return binary.LittleEndian.Uint64(ds[msgMax:]), err
}

// setMaxBytes changes msg_qbytes.
func setMaxBytes(id int32, n uint64) error {
	ds := make([]byte, dsSize)
	if err := queues.call(id, ipcStat, ds); err != nil {
		return err
	}
	binary.LittleEndian.PutUint64(ds[msgMax:], n)
	return queues.call(id, ipcSet, ds)
}

// values reads a set's semaphores.
func values(id int32, n int) ([]uint32, error) {
	buf := make([]byte, 2*n)
	if err := semaphores.call(id, semGetAll, buf); err != nil {
		return nil, err
	}
	out := make([]uint32, n)
	for i := range out {
		out[i] = uint32(binary.LittleEndian.Uint16(buf[2*i:]))
	}
	return out, nil
}

// errNoMessage: the queue has no message with that number.
var errNoMessage = errors.New("no such message")

// peek copies message number n of a queue, which stays there, to buf: its type
// in the first word, its text behind it.
func peek(id int32, n int, buf []byte) (int64, []byte, error) {
	got, _, e := unix.Syscall6(unix.SYS_MSGRCV, uintptr(id), uintptr(unsafe.Pointer(&buf[0])), uintptr(len(buf)-8),
		uintptr(n), ipcNoWait|msgCopy|msgNoError, 0)
	switch e {
	case 0:
		return int64(binary.LittleEndian.Uint64(buf)), buf[8 : 8+got], nil
	case unix.ENOMSG:
		return 0, nil, errNoMessage
	}
	return 0, nil, fmt.Errorf("copy message %d of %s %d (the kernel needs CONFIG_CHECKPOINT_RESTORE): %w", n, queues.name, id, e)
}
