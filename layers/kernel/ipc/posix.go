// SPDX-License-Identifier: Apache-2.0

package ipc

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"
)

// posixQueue is a POSIX message queue as the engine sees it.
type posixQueue struct {
	name string
	stat unix.Stat_t
	attr queueAttr
}

// queueAttr is struct mq_attr of include/uapi/linux/mqueue.h.
type queueAttr struct {
	flags, maxMessages, messageSize, messages int64
	_                                         [4]int64
}

// posixQueues lists the queues of the calling thread's namespace by a mount of
// their file system that is in no mount namespace.
func posixQueues() ([]posixQueue, error) {
	root, err := queueMount()
	if errors.Is(err, unix.ENODEV) {
		return nil, nil // a kernel without them
	}
	if err != nil {
		return nil, fmt.Errorf("list the POSIX message queues: %w", err)
	}
	defer root.Close()
	names, err := root.Readdirnames(-1)
	if err != nil {
		return nil, fmt.Errorf("list the POSIX message queues: %w", err)
	}
	var out []posixQueue
	for _, n := range names {
		q, err := lookQueue(root, n)
		if errors.Is(err, unix.ENOENT) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("POSIX message queue /%s: %w", n, err)
		}
		out = append(out, q)
	}
	return out, nil
}

func queueMount() (*os.File, error) {
	ctx, err := unix.Fsopen("mqueue", unix.FSOPEN_CLOEXEC)
	if err != nil {
		return nil, os.NewSyscallError("fsopen", err)
	}
	defer unix.Close(ctx)
	if err := unix.FsconfigCreate(ctx); err != nil {
		return nil, os.NewSyscallError("fsconfig", err)
	}
	fd, err := unix.Fsmount(ctx, unix.FSMOUNT_CLOEXEC, unix.MOUNT_ATTR_NOEXEC|unix.MOUNT_ATTR_NOSUID|unix.MOUNT_ATTR_NODEV)
	if err != nil {
		return nil, os.NewSyscallError("fsmount", err)
	}
	defer unix.Close(fd)
	dir, err := unix.Openat(fd, ".", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, os.NewSyscallError("open", err)
	}
	return os.NewFile(uintptr(dir), "mqueue"), nil
}

// lookQueue reads a queue's attributes. Messages cannot be read without taking
// them out, and would be lost if the engine died then: a queue that has some is
// refused, and so is a registration for a notification.
func lookQueue(root *os.File, name string) (posixQueue, error) {
	q := posixQueue{name: name}
	fd, err := unix.Openat(int(root.Fd()), name, unix.O_RDONLY|unix.O_NONBLOCK|unix.O_CLOEXEC|unix.O_NOFOLLOW, 0)
	if err != nil {
		return q, os.NewSyscallError("open", err)
	}
	defer unix.Close(fd)
	if err := unix.Fstat(fd, &q.stat); err != nil {
		return q, os.NewSyscallError("fstat", err)
	}
	if _, _, e := unix.Syscall(unix.SYS_MQ_GETSETATTR, uintptr(fd), 0, uintptr(unsafe.Pointer(&q.attr))); e != 0 {
		return q, os.NewSyscallError("mq_getattr", e)
	}
	what := "POSIX message queue /" + name
	if q.attr.messages > 0 {
		return q, &refusal{what, fmt.Sprintf("it holds %d messages, which cannot be read without taking them out", q.attr.messages), "let the program receive them"}
	}
	var text [256]byte
	n, err := unix.Read(fd, text[:])
	if err != nil {
		return q, os.NewSyscallError("read", err)
	}
	// "QSIZE:0 NOTIFY:0 SIGNO:0 NOTIFY_PID:0": a process that is to be notified,
	// as the reader of the file sees it (ipc/mqueue.c, mqueue_read_file).
	if pid := strings.Fields(string(text[:n])); len(pid) == 4 && !isZero(pid[3]) {
		return q, &refusal{what, "a process is registered for a notification (mq_notify(3)), which is not carried by this version", ""}
	}
	return q, nil
}

func isZero(field string) bool {
	_, value, _ := strings.Cut(field, ":")
	return value == "0"
}

// encode is struct mq_attr for mq_open.
func (a *queueAttr) encode() []byte {
	b := make([]byte, 0, 64)
	for _, v := range []int64{0, a.maxMessages, a.messageSize, 0, 0, 0, 0, 0} {
		b = binary.LittleEndian.AppendUint64(b, uint64(v))
	}
	return b
}
