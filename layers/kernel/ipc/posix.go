// SPDX-License-Identifier: Apache-2.0

package ipc

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

// posixQueue is a POSIX message queue as the engine sees it.
type posixQueue struct {
	name string
	stat unix.Stat_t
	attr queueAttr
	// bytes are those of all its messages.
	bytes int64
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

// lookQueue reads a queue's attributes. A registration for a notification is
// refused.
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
	if q.attr, err = getAttr(fd); err != nil {
		return q, err
	}
	said, err := readQueue(fd)
	if err != nil {
		return q, err
	}
	what := "POSIX message queue /" + name
	if said.notified != 0 {
		return q, &refusal{what, "a process is registered for a notification (mq_notify(3)), and nobody tells with which value", ""}
	}
	if q.bytes = said.bytes; q.attr.messages > 0 && q.attr.messageSize > maxText {
		return q, &refusal{what, fmt.Sprintf("it holds messages and takes ones of up to %d bytes, more than the %d that are carried", q.attr.messageSize, maxText), "let the program receive them"}
	}
	return q, nil
}

// getAttr is mq_getattr(3).
func getAttr(fd int) (a queueAttr, err error) {
	if _, _, e := unix.Syscall(unix.SYS_MQ_GETSETATTR, uintptr(fd), 0, uintptr(unsafe.Pointer(&a))); e != 0 {
		return a, os.NewSyscallError("mq_getattr", e)
	}
	return a, nil
}

// queueText is what a queue says when it is read like a file: the bytes of its
// messages, and a process that is registered for a notification.
type queueText struct{ bytes, notified int64 }

// readQueue reads "QSIZE:0 NOTIFY:0 SIGNO:0 NOTIFY_PID:0" (ipc/mqueue.c,
// mqueue_read_file).
func readQueue(fd int) (q queueText, err error) {
	var text [256]byte
	n, err := unix.Pread(fd, text[:], 0)
	if err != nil {
		return q, os.NewSyscallError("read", err)
	}
	var notify, signo int64
	if _, err := fmt.Sscanf(string(text[:n]), "QSIZE:%d NOTIFY:%d SIGNO:%d NOTIFY_PID:%d", &q.bytes, &notify, &signo, &q.notified); err != nil {
		return q, fmt.Errorf("it says %q: %w", text[:n], err)
	}
	return q, nil
}

// encode is struct mq_attr for mq_open.
func (a *queueAttr) encode() []byte {
	b := make([]byte, 0, 64)
	for _, v := range []int64{0, a.maxMessages, a.messageSize, 0, 0, 0, 0, 0} {
		b = binary.LittleEndian.AppendUint64(b, uint64(v))
	}
	return b
}
