// SPDX-License-Identifier: Apache-2.0

//go:build linux

package procfs

import (
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// TestOwnProcess parses every file of the test process: text that this
// kernel prints today and the golden files may not have.
func TestOwnProcess(t *testing.T) {
	p := Host().Process(os.Getpid())
	maps := must(p.Maps())(t)
	smaps := must(p.Smaps())(t)
	if len(maps) < 5 || len(smaps) < 5 {
		t.Errorf("%d and %d mappings", len(maps), len(smaps))
	}
	for _, m := range smaps {
		if m.UnknownFlags != nil || m.Extra != nil {
			t.Errorf("%v: this kernel knows more: %v %v", m.String(), m.UnknownFlags, m.Extra)
		}
		if m.Size != m.Len() || m.Flags.Has(VMWrite) != (m.Prot&ProtWrite != 0) || m.Flags.Has(VMShared) && !m.Shared {
			t.Errorf("%v: size %d, flags %v", m.String(), m.Size, m.Flags)
		}
	}
	stat := must(p.Stat())(t)
	if stat.Pid != os.Getpid() || stat.PPid != os.Getppid() || stat.StartTime == 0 || stat.ArgEnd <= stat.ArgStart {
		t.Errorf("stat: %+v", stat)
	}
	status := must(p.Status())(t)
	if status.Pid != os.Getpid() || int(status.UID.Real) != os.Getuid() || !status.HasMM || status.Extra != nil {
		t.Errorf("status: %+v", status)
	}
	equal(t, status.Name, must(p.Comm())(t))
	equal(t, status.Name, stat.Comm)
	equal(t, must(p.Cmdline())(t), os.Args)
	var nofile unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &nofile); err != nil {
		t.Fatal(err)
	}
	equal(t, must(p.Limits())(t)[unix.RLIMIT_NOFILE], Limit{nofile.Cur, nofile.Max})
	const atPagesz = 6
	for _, e := range must(p.Auxv())(t) {
		if e.Key == atPagesz && e.Value != uint64(os.Getpagesize()) {
			t.Errorf("AT_PAGESZ is %d", e.Value)
		}
	}
}

// TestOwnSmallFiles covers the files of which only the shape can be checked.
func TestOwnSmallFiles(t *testing.T) {
	f := Host()
	p := f.Process(os.Getpid())
	for _, tid := range must(p.Threads())(t) {
		thread := p.Thread(tid)
		// The runtime may end a thread between the listing and the look.
		if s, err := thread.Status(); err == nil && (s.Pid != tid || s.Tgid != os.Getpid()) {
			t.Errorf("thread %d: %+v", tid, s)
		} else if err != nil && !IsGone(err) {
			t.Error(err)
		}
	}
	must(p.Timers())(t)
	// Another thread's slack takes CAP_SYS_NICE to read, and this goroutine may
	// run on another than the first (fs/proc/base.c, timerslack_ns_show).
	if os.Geteuid() == 0 {
		must(p.TimerSlack())(t)
	}
	must(p.OOMScoreAdj())(t)
	must(p.Personality())(t)
	must(p.CoredumpFilter())(t)
	must(p.Children())(t)
	must(p.UIDMap())(t)
	must(p.GIDMap())(t)
	must(f.Locks())(t)
	must(f.SysVShm())(t)
	must(f.SysVMsg())(t)
	must(f.SysVSem())(t)
	must(p.UnixSockets())(t)
	must(p.NetlinkSockets())(t)
	for _, name := range []string{"tcp", "tcp6", "udp", "udp6", "raw", "raw6"} {
		if _, err := p.Inet(name); err != nil && !IsGone(err) {
			t.Error(err)
		}
	}
	for name, read := range map[string]func() error{ // depend on the kernel's configuration
		"loginuid":       func() error { _, err := p.LoginUID(); return err },
		"timens_offsets": func() error { _, err := p.TimensOffsets(); return err },
		"packet":         func() error { _, err := p.PacketSockets(); return err },
		"cgroup":         func() error { _, err := p.Cgroup(); return err },
	} {
		if err := read(); err != nil && !IsGone(err) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if cpus := must(f.CPUInfo())(t); len(cpus) == 0 {
		t.Error("no processors")
	}
	if last := must(f.CapLastCap())(t); last < 37 {
		t.Errorf("last capability is %d", last)
	}
	if ns := must(p.Namespaces())(t); ns["mnt"].Type != "mnt" || ns["mnt"].Inode == 0 {
		t.Errorf("namespaces: %v", ns)
	}
	root := false
	for _, m := range must(p.Mountinfo())(t) {
		root = root || m.Target == "/"
	}
	if !root {
		t.Error("no mount at /")
	}
	cwd, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	equal(t, must(p.Cwd())(t).Path, cwd)
	equal(t, must(p.Root())(t).Path, "/")
}

// open makes a descriptor by raw system call and closes it after the test.
func open(t *testing.T, fd int, err error) int {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	return fd
}

func TestOwnDescriptors(t *testing.T) {
	p := Host().Process(os.Getpid())
	check := func(fd int, kind FDKind) FDInfo {
		t.Helper()
		if l := must(p.FDLink(fd))(t); l.Kind != kind {
			t.Errorf("descriptor is %+v, want kind %v", l, kind)
		}
		info := must(p.FDInfo(fd))(t)
		if info.Extra != nil {
			t.Errorf("%v: this kernel knows more: %q", kind, info.Extra)
		}
		return info
	}
	fd, err := unix.Eventfd(0x1f, unix.EFD_SEMAPHORE|unix.EFD_CLOEXEC)
	event := open(t, fd, err)
	info := check(event, FDEventfd)
	if info.Eventfd == nil || info.Eventfd.Count != 0x1f || info.Flags&unix.O_CLOEXEC == 0 {
		t.Errorf("eventfd: %+v, flags %o", info.Eventfd, info.Flags)
	}
	fd, err = unix.EpollCreate1(0)
	epoll := open(t, fd, err)
	target := unix.EpollEvent{Events: unix.EPOLLIN | unix.EPOLLONESHOT, Fd: 0x1234, Pad: 0x5678}
	if err := unix.EpollCtl(epoll, unix.EPOLL_CTL_ADD, event, &target); err != nil {
		t.Fatal(err)
	}
	if e := check(epoll, FDEpoll).Epoll; len(e) != 1 || e[0].FD != event || e[0].Data != 0x567800001234 || e[0].Ino != info.Ino {
		t.Errorf("epoll: %+v", e)
	}
	fd, err = unix.TimerfdCreate(unix.CLOCK_MONOTONIC, 0)
	timer := open(t, fd, err)
	spec := unix.ItimerSpec{Value: unix.Timespec{Sec: 1000}, Interval: unix.Timespec{Sec: 1, Nsec: 5}}
	if err := unix.TimerfdSettime(timer, 0, &spec, nil); err != nil {
		t.Fatal(err)
	}
	if tm := check(timer, FDTimerfd).Timerfd; tm == nil || tm.Value.Sec != 999 || tm.Interval != (Timespec{1, 5}) || tm.ClockID != 1 {
		t.Errorf("timerfd: %+v", tm)
	}
	fd, err = unix.Signalfd(-1, &unix.Sigset_t{Val: [16]uint64{1 << (unix.SIGUSR1 - 1)}}, 0)
	if s := check(open(t, fd, err), FDSignalfd).Signalfd; s == nil || *s != 1<<(unix.SIGUSR1-1) {
		t.Errorf("signalfd: %v", s)
	}
	fd, err = unix.PidfdOpen(os.Getpid(), 0)
	if d := check(open(t, fd, err), FDPidfd).Pidfd; d == nil || d.Pid != os.Getpid() {
		t.Errorf("pidfd: %+v", d)
	}
	fd, err = unix.MemfdCreate("a b\nc", 0)
	check(open(t, fd, err), FDMemfd)
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM, 0)
	open(t, pair[1], err)
	check(open(t, pair[0], err), FDSocket)
	var ends [2]int
	err = unix.Pipe(ends[:])
	open(t, ends[1], err)
	check(open(t, ends[0], err), FDPipe)
}

// TestOwnInotify has twenty watches because their numbers are hexadecimal,
// against what proc.rst says.
func TestOwnInotify(t *testing.T) {
	fd, err := unix.InotifyInit1(0)
	open(t, fd, err)
	want := map[int]uint64{}
	for range 20 {
		dir := t.TempDir()
		wd, err := unix.InotifyAddWatch(fd, dir, unix.IN_CREATE)
		if err != nil {
			t.Fatal(err)
		}
		var st unix.Stat_t
		if err := unix.Stat(dir, &st); err != nil {
			t.Fatal(err)
		}
		want[wd] = st.Ino
	}
	got := map[int]uint64{}
	for _, w := range must(Host().Process(os.Getpid()).FDInfo(fd))(t).Inotify {
		got[w.WD] = w.Ino
	}
	equal(t, got, want)
}

// TestOwnFanotify marks a directory as somebody without privileges may.
func TestOwnFanotify(t *testing.T) {
	fd, err := unix.FanotifyInit(unix.FAN_REPORT_DFID_NAME|unix.FAN_CLOEXEC, unix.O_RDWR)
	open(t, fd, err)
	dir := t.TempDir()
	const events, ignored = unix.FAN_CREATE | unix.FAN_OPEN | unix.FAN_ONDIR, unix.FAN_OPEN | unix.FAN_ONDIR
	err = errors.Join(unix.FanotifyMark(fd, unix.FAN_MARK_ADD, events, unix.AT_FDCWD, dir),
		unix.FanotifyMark(fd, unix.FAN_MARK_ADD|unix.FAN_MARK_IGNORE_SURV, ignored, unix.AT_FDCWD, dir))
	var st unix.Stat_t
	if err := errors.Join(err, unix.Stat(dir, &st)); err != nil {
		t.Fatal(err)
	}
	got := must(Host().Process(os.Getpid()).FDInfo(fd))(t).Fanotify
	if got == nil || got.Flags != unix.FAN_REPORT_DFID_NAME|unix.FAN_CLOEXEC || got.EventFlags&unix.O_ACCMODE != unix.O_RDWR || len(got.Marks) != 1 {
		t.Fatalf("group %+v", got)
	}
	if m := got.Marks[0]; m.Ino != st.Ino || m.Mask != events || m.IgnoredMask != ignored || m.MFlags != unix.FAN_MARK_IGNORE_SURV {
		t.Fatalf("mark %+v", m)
	}
}

// TestOwnTimers makes a POSIX timer, which the Go runtime does not know of.
func TestOwnTimers(t *testing.T) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	var event struct { // struct sigevent: value, signo, notify, tid
		value                 uint64
		signo, notify, thread int32
		_                     [44]byte
	}
	const sigevThreadID = 4
	event.value, event.signo, event.notify, event.thread = 0xdeadbeef, 10, sigevThreadID, int32(unix.Gettid())
	var id int32
	if _, _, e := unix.Syscall(unix.SYS_TIMER_CREATE, unix.CLOCK_MONOTONIC,
		uintptr(unsafe.Pointer(&event)), uintptr(unsafe.Pointer(&id))); e != 0 {
		t.Fatal(e)
	}
	defer unix.Syscall(unix.SYS_TIMER_DELETE, uintptr(id), 0, 0)
	equal(t, must(Host().Process(os.Getpid()).Timers())(t), []Timer{
		{ID: int(id), Signal: 10, Value: 0xdeadbeef, Notify: NotifySignal, ByThread: true, Target: unix.Gettid(), ClockID: 1}})
}

// TestOwnLocks has one lock of each class, and one that waits.
func TestOwnLocks(t *testing.T) {
	path := filepath.Join(t.TempDir(), "x")
	fd, err := unix.Open(path, unix.O_CREAT|unix.O_RDWR, 0o600)
	open(t, fd, err)
	lock := func(fd, cmd int, from int64) error {
		return unix.FcntlFlock(uintptr(fd), cmd, &unix.Flock_t{Type: unix.F_WRLCK, Start: from, Len: 10})
	}
	if err := lock(fd, unix.F_SETLK, 0); err != nil {
		t.Fatal(err)
	}
	if err := lock(fd, unix.F_OFD_SETLK, 100); err != nil {
		t.Fatal(err)
	}
	if err := unix.Flock(fd, unix.LOCK_SH); err != nil {
		t.Fatal(err)
	}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		t.Fatal(err)
	}
	held := map[LockClass][2]int64{}
	for _, l := range must(Host().Process(os.Getpid()).FDInfo(fd))(t).Locks {
		held[l.Class] = [2]int64{l.Start, l.End}
		if l.Inode != st.Ino {
			t.Errorf("%+v is not on inode %d", l, st.Ino)
		}
	}
	equal(t, held, map[LockClass][2]int64{LockPOSIX: {0, 9}, LockOFD: {100, 109}, LockFlock: {0, LockEOF}})
}

// TestWaitingLock has a thread wait for a lock and finds it in /proc/locks.
func TestWaitingLock(t *testing.T) {
	path := filepath.Join(t.TempDir(), "x")
	holder, err := unix.Open(path, unix.O_CREAT|unix.O_RDWR|unix.O_CLOEXEC, 0o600)
	open(t, holder, err)
	waiter, err := unix.Open(path, unix.O_RDWR|unix.O_CLOEXEC, 0)
	open(t, waiter, err)
	if err := unix.Flock(holder, unix.LOCK_EX); err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- unix.Flock(waiter, unix.LOCK_EX) }()
	var st unix.Stat_t
	if err := unix.Fstat(holder, &st); err != nil {
		t.Fatal(err)
	}
	depths := func() (out []int) {
		for _, l := range must(Host().Locks())(t) {
			if l.Inode == st.Ino && l.Class == LockFlock {
				out = append(out, l.Depth)
			}
		}
		return out
	}
	deadline := time.Now().Add(5 * time.Second)
	for len(depths()) < 2 && time.Now().Before(deadline) {
		time.Sleep(time.Millisecond)
	}
	equal(t, depths(), []int{0, 1})
	if err := unix.Flock(holder, unix.LOCK_UN); err != nil {
		t.Fatal(err)
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// TestOwnMapKinds maps one of each kind that a program can make and checks
// that the kernel's names are recognised.
func TestOwnMapKinds(t *testing.T) {
	dir := t.TempDir()
	file := func(name string) int {
		fd, err := unix.Open(filepath.Join(dir, name), unix.O_CREAT|unix.O_RDWR, 0o600)
		open(t, fd, err)
		if err := unix.Ftruncate(fd, 4096); err != nil {
			t.Fatal(err)
		}
		return fd
	}
	memfd, err := unix.MemfdCreate("mem fd", 0)
	open(t, memfd, err)
	if err := unix.Ftruncate(memfd, 4096); err != nil {
		t.Fatal(err)
	}
	gone := file("go\nne")
	if err := os.Remove(filepath.Join(dir, "go\nne")); err != nil {
		t.Fatal(err)
	}
	type want struct {
		kind    MapKind
		path    string
		deleted bool
	}
	expect := map[uintptr]want{}
	add := func(fd, flags int, w want) {
		mem, err := unix.Mmap(fd, 0, 4096, unix.PROT_READ, flags)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = unix.Munmap(mem) })
		expect[uintptr(unsafe.Pointer(&mem[0]))] = w
	}
	add(-1, unix.MAP_SHARED|unix.MAP_ANON, want{MapSharedAnon, "/dev/zero", true})
	add(memfd, unix.MAP_SHARED, want{MapMemfd, "/memfd:mem fd", true})
	add(file("sp ace"), unix.MAP_PRIVATE, want{MapFile, filepath.Join(dir, "sp ace"), false})
	add(file("x (deleted)"), unix.MAP_PRIVATE, want{MapFile, filepath.Join(dir, "x"), true}) // the documented lie
	add(gone, unix.MAP_PRIVATE, want{MapFile, filepath.Join(dir, "go\nne"), true})
	for _, m := range must(Host().Process(os.Getpid()).Maps())(t) {
		if w, ok := expect[uintptr(m.Start)]; ok {
			equal(t, []any{m.Kind, m.Path, m.Deleted}, []any{w.kind, w.path, w.deleted})
			delete(expect, uintptr(m.Start))
		}
	}
	if len(expect) > 0 {
		t.Errorf("not found: %v", expect)
	}
}
