// SPDX-License-Identifier: Apache-2.0

package runtime

import (
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// pauseELF is a static program that calls pause(2) for ever.
func pauseELF() []byte {
	const base, entry = 0x20000000000, 0x78
	b := make([]byte, entry, entry+9)
	le := binary.LittleEndian
	copy(b, "\x7fELF\x02\x01\x01")
	le.PutUint16(b[16:], 2)          // ET_EXEC
	le.PutUint16(b[18:], 62)         // EM_X86_64
	le.PutUint32(b[20:], 1)          // EV_CURRENT
	le.PutUint64(b[24:], base+entry) // e_entry
	le.PutUint64(b[32:], 64)         // e_phoff
	le.PutUint16(b[52:], 64)         // e_ehsize
	le.PutUint16(b[54:], 56)         // e_phentsize
	le.PutUint16(b[56:], 1)          // e_phnum
	le.PutUint32(b[64:], 1)          // PT_LOAD
	le.PutUint32(b[68:], 5)          // R-X
	le.PutUint64(b[80:], base)       // p_vaddr
	le.PutUint64(b[96:], entry+9)    // p_filesz
	le.PutUint64(b[104:], entry+9)   // p_memsz
	le.PutUint64(b[112:], 4096)      // p_align
	// mov eax, 34 (pause); syscall; jmp back
	return append(b, 0xb8, 34, 0, 0, 0, 0x0f, 0x05, 0xeb, 0xf7)
}

// newFrame returns a frame and our end of its socket.
func newFrame(t *testing.T) (*Frame, *os.File) {
	t.Helper()
	const mfdExec = 0x10 // MFD_EXEC, linux/memfd.h
	fd, err := unix.MemfdCreate("frame", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING|mfdExec)
	must(t, err)
	elf := os.NewFile(uintptr(fd), "frame")
	t.Cleanup(func() { elf.Close() })
	_, err = elf.Write(pauseELF())
	must(t, err)
	_, err = unix.FcntlInt(elf.Fd(), unix.F_ADD_SEALS, unix.F_SEAL_SEAL|unix.F_SEAL_SHRINK|unix.F_SEAL_GROW|unix.F_SEAL_WRITE)
	must(t, err)
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	must(t, err)
	ours, theirs := os.NewFile(uintptr(fds[0]), "ours"), os.NewFile(uintptr(fds[1]), "theirs")
	t.Cleanup(func() { ours.Close(); theirs.Close() })
	return &Frame{ELF: elf, Socket: theirs}, ours
}

// frameSpec asks for little: what a frame is given beyond it must not leak.
func frameSpec(s *sandbox, id string) *specs.Spec {
	spec := s.spec(id, "no-such-program")
	caps := []string{"CAP_KILL"}
	spec.Process.User = specs.User{UID: 1000, GID: 1000, AdditionalGids: []uint32{5}}
	spec.Process.Capabilities = &specs.LinuxCapabilities{Bounding: caps, Permitted: caps, Effective: caps}
	spec.Process.Rlimits = []specs.POSIXRlimit{{Type: "RLIMIT_NOFILE", Hard: 40, Soft: 30}, {Type: "RLIMIT_CORE"}}
	spec.Process.Cwd = "/comes/with/the/image"
	spec.Linux.Seccomp = denyMkdir()
	spec.Hooks = hooks("createRuntime", "touch "+filepath.Join(s.bundle, "hooked"))
	return spec
}

func TestFrame(t *testing.T) {
	for name, change := range map[string]func(*specs.Spec){
		"plain":             func(*specs.Spec) {},
		"no-new-privileges": func(s *specs.Spec) { s.Process.NoNewPrivileges = true },
		"new-privileges":    func(s *specs.Spec) { s.Process.NoNewPrivileges = false },
		"user-namespace":    withUserns,
		"capset-denied": func(s *specs.Spec) {
			s.Process.NoNewPrivileges = true
			s.Linux.Seccomp.Syscalls[0].Names = append(s.Linux.Seccomp.Syscalls[0].Names, "capset", "prctl", "setuid", "setgroups")
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := newSandbox(t)
			spec := frameSpec(s, "frame-"+name)
			change(spec)
			testFrame(t, s, spec)
		})
	}
}

func testFrame(t *testing.T, s *sandbox, spec *specs.Spec) {
	frame, ours := newFrame(t)
	out := newOutput(t)
	o := s.options("frame", spec)
	o.Frame, o.Stdio = frame, Stdio{Stdout: out.w, Stderr: out.w}
	c := s.create(o)
	st, err := c.Status()
	must(t, err)
	want(t, "state", st.State, StateCreated)

	if _, err := os.Stat(filepath.Join(s.bundle, "hooked")); err != nil {
		t.Error("createRuntime hook:", err)
	}

	frame.Socket.Close()
	engine(t, c.Init().Pid(), func() error { return c.ReleaseFrame(t.Context()) })

	st, err = c.Status()
	must(t, err)
	want(t, "state", st.State, StateRunning)
	exe, err := os.Readlink("/proc/" + pidString(c) + "/exe")
	must(t, err)
	want(t, "program", strings.HasPrefix(exe, "/memfd:frame"), true)
	status, err := os.ReadFile("/proc/" + pidString(c) + "/status")
	must(t, err)
	// KILL 5, SETGID 6, SETUID 7, SETPCAP 8, SYS_ADMIN 21, CHECKPOINT_RESTORE 40
	for _, line := range []string{"CapEff:\t00000100002001e0", "CapPrm:\t00000100002001e0", "CapBnd:\t00000100002001e0", "CapAmb:\t0000000000000000", "Seccomp:\t2"} {
		if !strings.Contains(string(status), line) {
			t.Errorf("no %q in\n%s", line, status)
		}
	}
	var limit unix.Rlimit
	must(t, unix.Prlimit(c.Init().Pid(), unix.RLIMIT_NOFILE, nil, &limit))
	if limit.Cur < 1000 {
		t.Errorf("soft RLIMIT_NOFILE is %d", limit.Cur)
	}
	want(t, "the spec's limit", c.TargetProcess().Rlimits[0].Soft, uint64(30))
	info, err := out.w.Stat()
	must(t, err)
	owner := uint32(1000)
	if len(spec.Linux.UIDMappings) > 0 {
		owner += 100000
	}
	want(t, "owner of stdout", ownerOf(info), owner)
	testSocket(t, c, ours)
	testFrameLife(t, s, c, spec)
}

// testSocket: descriptor 4 is the other end of ours.
func testSocket(t *testing.T, c *Container, ours *os.File) {
	t.Helper()
	link, err := os.Readlink("/proc/" + pidString(c) + "/fd/4")
	must(t, err)
	want(t, "descriptor 4 is a socket", strings.HasPrefix(link, "socket:"), true)
	fds := []unix.PollFd{{Fd: int32(ours.Fd()), Events: unix.POLLIN}}
	_, err = unix.Poll(fds, 0)
	must(t, err)
	want(t, "the other end is open", fds[0].Revents, int16(0))
}

// testFrameLife: later on the container is one like any other.
func testFrameLife(t *testing.T, s *sandbox, c *Container, spec *specs.Spec) {
	t.Helper()
	p := process(spec, sh("id -u; ulimit -n; mkdir /tmp/x 2>/dev/null || echo denied; grep -E 'CapEff|Seccomp:' /proc/self/status")...)
	p.Cwd = "/"
	out, _ := s.exec(c, p)
	want(t, "exec session", strings.Join(strings.Fields(out), " "), "1000 30 denied CapEff: 0000000000000000 Seccomp: 2")
	must(t, c.Pause())
	must(t, c.Resume())
	if _, err := c.Stats(); err != nil {
		t.Error(err)
	}
	must(t, c.Signal(unix.SIGKILL, false))
	want(t, "exit status", waitDone(t, c.Init()), 137)
}

// engine does what an engine process does up to the frame's first instruction:
// seize the init, let release go on, pass its signals, stop at the execve.
func engine(t *testing.T, pid int, release func() error) {
	t.Helper()
	runtime.LockOSThread() // ptrace(2) is a matter of one thread
	defer runtime.UnlockOSThread()
	const suspendSeccomp = 1 << 21 // PTRACE_O_SUSPEND_SECCOMP, linux/ptrace.h
	options := unix.PTRACE_O_TRACEEXEC | unix.PTRACE_O_EXITKILL | unix.PTRACE_O_TRACESYSGOOD | suspendSeccomp
	_, _, errno := unix.Syscall6(unix.SYS_PTRACE, unix.PTRACE_SEIZE, uintptr(pid), 0, uintptr(options), 0, 0)
	if errno != 0 {
		t.Fatal("seize:", errno)
	}
	done := make(chan error, 1)
	go func() { done <- release() }()
	for {
		var ws unix.WaitStatus
		// Go's init has several threads, of which only the main one is seized.
		if _, err := unix.Wait4(pid, &ws, unix.WALL, nil); err == unix.EINTR {
			continue
		} else if err != nil {
			t.Fatal("wait:", err)
		}
		if !ws.Stopped() {
			t.Fatalf("the init ended: %#x", ws)
		}
		if ws.TrapCause() == unix.PTRACE_EVENT_EXEC {
			break
		}
		sig := ws.StopSignal()
		if ws>>16 != 0 {
			sig = 0 // an event, not a signal on its way
		}
		must(t, unix.PtraceCont(pid, int(sig)))
	}
	must(t, <-done)
	var regs unix.PtraceRegs
	must(t, unix.PtraceGetRegs(pid, &regs))
	want(t, "entry point", fmt.Sprintf("%#x", regs.Rip), "0x20000000078")
	must(t, unix.PtraceDetach(pid))
}

// TestFrameTerminal: the terminal belongs to the user that the frame becomes.
func TestFrameTerminal(t *testing.T) {
	s := newSandbox(t)
	frame, _ := newFrame(t)
	o := s.options("frame-tty", frameSpec(s, "frame-tty"))
	o.Frame, o.Stdio.Terminal = frame, true
	c := s.create(o)
	engine(t, c.Init().Pid(), func() error { return c.ReleaseFrame(t.Context()) })
	must(t, c.Init().Resize(132, 43))
	tty, err := os.Stat("/proc/" + pidString(c) + "/fd/0")
	must(t, err)
	want(t, "owner of the terminal", ownerOf(tty), uint32(1000))
	link, err := os.Readlink("/proc/" + pidString(c) + "/fd/2")
	must(t, err)
	want(t, "stderr", link, "/dev/pts/0")
}
