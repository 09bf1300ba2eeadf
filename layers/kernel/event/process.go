// SPDX-License-Identifier: Apache-2.0

package event

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/io-mig/mig/layers/kernel/procfs"
	"github.com/io-mig/mig/layers/kernel/target"
	"github.com/io-mig/mig/spec/state"
)

// threadFlag is PIDFD_THREAD of include/uapi/linux/pidfd.h (Linux 6.9).
const threadFlag = unix.O_EXCL

// processFlags are the flags that a pidfd can have.
const processFlags = unix.O_ACCMODE | unix.O_NONBLOCK | threadFlag

// process describes a pidfd of a process of the container, which may be a
// zombie, or of one that is gone.
func process(info *procfs.PidfdInfo, flags uint32, init int) (*state.EventProcess, error) {
	msg := &state.EventProcess{Flags: flags}
	if info.Pid < 0 {
		return msg, nil
	}
	home, err := procfs.Host().Process(init).Namespace("pid")
	if err != nil {
		return nil, err
	}
	if info.Pid == 0 || len(info.NSpid) == 0 {
		return nil, outsider(info.Pid)
	}
	ns, err := procfs.Host().Process(info.Pid).Namespace("pid")
	if procfs.IsGone(err) {
		return msg, nil // it runs, and the process has ended since fdinfo was read
	}
	if err != nil {
		return nil, err
	}
	if ns.Inode != home.Inode {
		return nil, outsider(info.Pid)
	}
	if flags&threadFlag != 0 && isThread(info.Pid) {
		return nil, &refusal{"pidfd", fmt.Sprintf("it is of a thread that leads no process, %d (PIDFD_THREAD), which is not carried by this version", info.Pid), "close it before the checkpoint"}
	}
	msg.Pid = uint32(info.NSpid[len(info.NSpid)-1])
	return msg, nil
}

func outsider(pid int) *refusal {
	return &refusal{"pidfd", fmt.Sprintf("its process, %d, is not in the container", pid), "close it before the checkpoint"}
}

func isThread(tid int) bool {
	st, err := procfs.Host().Process(tid).Status()
	return err == nil && st.Tgid != tid
}

// describeEnded numbers the process that a pidfd leads to and finds out how it
// has ended.
func (s *Subsystem) describeEnded(p *target.Process, d *target.Descriptor, msg *state.EventProcess) error {
	s.mu.Lock()
	if s.ended[d.Stat.Ino] == 0 {
		s.ended[d.Stat.Ino] = uint32(len(s.ended) + 1)
	}
	msg.Ended = s.ended[d.Stat.Ino]
	s.mu.Unlock()
	own, err := p.Open(d)
	if err != nil {
		return err
	}
	defer own.Close()
	msg.Status, err = exitStatus(int(own.Fd()))
	return err
}

// pidfdInfo is struct pidfd_info of include/uapi/linux/pidfd.h, version 0.
type pidfdInfo struct {
	mask, _ uint64
	_       [11]uint32 // ids
	exit    int32
}

const (
	getInfo  = 0xc040ff0b // PIDFD_GET_INFO, _IOWR(0xff, 11, struct pidfd_info)
	infoExit = 1 << 3     // PIDFD_INFO_EXIT, Linux 6.15
)

// exitStatus is what a pidfd keeps of a process that was waited for, 0 on a
// kernel that keeps nothing.
func exitStatus(fd int) (uint32, error) {
	info := pidfdInfo{mask: infoExit}
	_, _, e := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), getInfo, uintptr(unsafe.Pointer(&info)))
	switch {
	case e == unix.ENOTTY, e == unix.EINVAL, e == unix.ESRCH, e == 0 && info.mask&infoExit == 0:
		return 0, nil
	case e != 0:
		return 0, os.NewSyscallError("ioctl(PIDFD_GET_INFO)", e)
	}
	return uint32(info.exit) & 0xffff, nil
}

// maxEnded bounds the ended processes of an image: each is made for a moment.
const maxEnded = 1 << 16

func checkProcess(m *state.EventProcess) error {
	const maxPid = 4 << 20 // PID_MAX_LIMIT
	if (m.Pid == 0) != (m.Ended != 0) || m.Pid > maxPid || m.Ended > maxEnded || m.Status > 0xffff || m.Pid != 0 && m.Status != 0 {
		return fmt.Errorf("pidfd of process %d, ended %d with status %#x", m.Pid, m.Ended, m.Status)
	}
	return nil
}

// standIns are processes in the place of those that have ended, by their numbers.
type standIns map[uint32]*standIn

type standIn struct {
	maker, task *target.Task
	status      int
}

// standIn makes them: until they are ended pidfds of them can be opened.
func (s *Subsystem) standIn() (standIns, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	made := standIns{}
	for _, desc := range slices.Sorted(maps.Keys(s.in)) {
		m, ok := s.in[desc].(*state.EventProcess)
		if !ok || m.Ended == 0 || made[m.Ended] != nil {
			continue
		}
		maker, err := s.env.Frame.Stopped(target.FirstTask)
		if err != nil {
			return made, err
		}
		t, err := maker.ForkFree()
		if err != nil {
			return made, fmt.Errorf("a process in the place of one that has ended: %w", err)
		}
		made[m.Ended] = &standIn{maker, t, int(m.Status)}
	}
	return made, nil
}

// pid is the process whose pidfd is to be opened, as the container numbers it.
func (s standIns) pid(m *state.EventProcess) int {
	if in := s[m.Ended]; in != nil {
		return in.task.Traced.NSPid
	}
	return int(m.Pid)
}

// end ends them as the others had ended.
func (s standIns) end() error {
	var errs []error
	for _, n := range slices.Sorted(maps.Keys(s)) {
		in := s[n]
		pid := in.task.Traced.NSPid
		err := in.task.End(in.status)
		if err == nil {
			err = in.maker.Bury(pid)
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}
