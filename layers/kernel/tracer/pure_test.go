// SPDX-License-Identifier: Apache-2.0

package tracer

import (
	"encoding/binary"
	"os"
	"slices"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/io-mig/mig/spec/arch/amd64"
)

func TestRestart(t *testing.T) {
	code := func(v int64) uint64 { return uint64(v) }
	poll := []byte{0x90, 0x90, 0xb8, 7, 0, 0, 0, 0x0f, 5}
	for _, c := range []struct {
		name   string
		nr     uint64
		rax    int64
		rsi    uint64
		h      PendingHandler
		before []byte
		kind   RestartKind
		back   bool
		wantNr uint64
		wantAx int64
	}{
		{name: "read", nr: unix.SYS_READ, rax: restartSys, kind: RestartRewound, back: true},
		{name: "read, handler without SA_RESTART", nr: unix.SYS_READ, rax: restartSys, h: HandlerEINTR, kind: RestartInterrupted, wantAx: -4},
		{name: "read, handler with SA_RESTART", nr: unix.SYS_READ, rax: restartSys, h: HandlerRestart, kind: RestartRewound, back: true},
		{name: "nointr", nr: unix.SYS_FORK, rax: restartNoIntr, h: HandlerEINTR, kind: RestartRewound, back: true},
		{name: "pause", nr: unix.SYS_PAUSE, rax: restartNoHand, kind: RestartRewound, back: true},
		{name: "pause, handler", nr: unix.SYS_PAUSE, rax: restartNoHand, h: HandlerRestart, kind: RestartInterrupted, wantAx: -4},
		{name: "nanosleep", nr: unix.SYS_NANOSLEEP, rax: restartBlock, kind: RestartTimeout, back: true},
		{name: "futex wait", nr: unix.SYS_FUTEX, rax: restartBlock, rsi: 128, kind: RestartTimeout, back: true},
		{name: "futex wait_bitset", nr: unix.SYS_FUTEX, rax: restartBlock, rsi: 128 | 9, kind: RestartRewound, back: true},
		{name: "restarted poll", nr: unix.SYS_RESTART_SYSCALL, rax: restartBlock, before: poll, kind: RestartTimeout, back: true, wantNr: 7},
		{name: "restarted unknown", nr: unix.SYS_RESTART_SYSCALL, rax: restartBlock, kind: RestartInterrupted, wantAx: -4},
		{name: "epoll_wait", nr: unix.SYS_EPOLL_WAIT, rax: -4, kind: RestartTimeout, back: true},
		{name: "epoll_wait, handler", nr: unix.SYS_EPOLL_WAIT, rax: -4, h: HandlerRestart, kind: RestartNone, wantAx: -4},
		{name: "getpid, done", nr: unix.SYS_GETPID, rax: 42, kind: RestartNone, wantAx: 42},
		{name: "close, EINTR of its own", nr: unix.SYS_CLOSE, rax: -4, kind: RestartNone, wantAx: -4},
		{name: "not in a call", nr: amd64.NoSyscall, rax: -512, kind: RestartNone, wantAx: -512},
	} {
		r := amd64.Registers{Rip: 0x1002, OrigRax: c.nr, Rax: code(c.rax), Rsi: c.rsi}
		got, kind := Restart(r, c.h, c.before)
		want := r
		want.OrigRax, want.Rax = amd64.NoSyscall, code(c.wantAx)
		if c.back {
			want.Rip -= 2
			want.Rax = c.nr
			if c.wantNr != 0 {
				want.Rax = c.wantNr
			}
		}
		if kind != c.kind || got != want {
			t.Errorf("%s: kind %d, %+v", c.name, kind, got)
		}
	}
}

func TestRseqAbort(t *testing.T) {
	cs := make([]byte, rseqCSSize)
	binary.LittleEndian.PutUint64(cs[8:], 0x1000)
	binary.LittleEndian.PutUint64(cs[16:], 0x20)
	binary.LittleEndian.PutUint64(cs[24:], 0x9000)
	for rip, want := range map[uint64]uint64{0xfff: 0xfff, 0x1000: 0x9000, 0x101f: 0x9000, 0x1020: 0x1020} {
		if r := rseqAbort(amd64.Registers{Rip: rip}, cs); r.Rip != want {
			t.Errorf("%#x becomes %#x", rip, r.Rip)
		}
	}
	if r := rseqAbort(amd64.Registers{Rip: 0x1000}, nil); r.Rip != 0x1000 {
		t.Error("no section, but aborted")
	}
}

func TestSigframe(t *testing.T) {
	x := make([]byte, 832)
	binary.LittleEndian.PutUint64(x[amd64.XSaveFeatures:], 7)
	binary.LittleEndian.PutUint64(x[amd64.XSaveBV:], 7)
	r := amd64.Registers{R8: 8, Rdi: 1, Rsp: 2, Rip: 3, Eflags: 4, Cs: amd64.UserCS, Ss: amd64.UserSS}
	const at = 0x7000
	b := sigframe(at, 0x1234, &r, 0xabc, x)
	if len(b) != sigframeSize(len(x)) || !isSigframe(b) || isSigframe(b[8:]) {
		t.Fatal("size or magic")
	}
	// Offsets from the start of struct rt_sigframe.
	for off, want := range map[int]uint64{0: 0x1234, 8: 7, 48: 8, 112: 1, 168: 2, 176: 3, 184: 4, 192: amd64.UserCS | amd64.UserSS<<48, 232: at + 448, 304: 0xabc} {
		if v := leUint64(b[off:]); v != want {
			t.Errorf("offset %d: %#x, want %#x", off, v, want)
		}
	}
	fp := b[448:]
	if binary.LittleEndian.Uint32(fp[464:]) != fpMagic1 || binary.LittleEndian.Uint32(fp[468:]) != 836 || leUint64(fp[472:]) != 7 ||
		binary.LittleEndian.Uint32(fp[480:]) != 832 || binary.LittleEndian.Uint32(fp[832:]) != fpMagic2 {
		t.Error("software-reserved bytes")
	}
}

func TestSigframeLeavesUnusedDynamicStateOut(t *testing.T) {
	l := &amd64.XLayout{Features: 7 | amd64.FeatureTileCfg | amd64.FeatureTileData, Components: []amd64.XComponent{{Bit: 2, Offset: 576, Size: 256}, {Bit: 17, Offset: 2752, Size: 64}, {Bit: 18, Offset: 2816, Size: 8192}}}
	x := make([]byte, 11008)
	for bv, want := range map[uint64]int{7: 2816, 7 | amd64.FeatureTileData: 11008} {
		binary.LittleEndian.PutUint64(x[amd64.XSaveBV:], bv)
		if n, err := sigframeXSize(x, l); n != want || err != nil {
			t.Errorf("%#x: %d %v", bv, n, err)
		}
	}
	if _, err := sigframeXSize(x[:1000], l); err == nil {
		t.Error("short area accepted")
	}
}

func TestStopSignal(t *testing.T) {
	bit := func(s ...unix.Signal) (m uint64) {
		for _, v := range s {
			m |= sigBit(int(v))
		}
		return m
	}
	for name, c := range map[string]struct {
		s       signalSets
		want    unix.Signal
		blocked bool
	}{
		"nothing handled":  {want: unix.SIGWINCH},
		"winch handled":    {s: signalSets{Caught: bit(unix.SIGWINCH)}, want: unix.SIGURG},
		"winch blocked":    {s: signalSets{Blocked: bit(unix.SIGWINCH)}, want: unix.SIGURG},
		"winch pending":    {s: signalSets{SharedPending: bit(unix.SIGWINCH)}, want: unix.SIGURG},
		"only child left":  {s: signalSets{Caught: bit(unix.SIGWINCH, unix.SIGURG)}, want: unix.SIGCHLD},
		"pipe ignored":     {s: signalSets{Caught: bit(unix.SIGWINCH, unix.SIGURG, unix.SIGCHLD), Ignored: bit(unix.SIGTRAP, unix.SIGPIPE)}, want: unix.SIGPIPE},
		"all blocked":      {s: signalSets{Blocked: blockAll}, want: unix.SIGWINCH, blocked: true},
		"blocked, handled": {s: signalSets{Blocked: blockAll, Caught: bit(unix.SIGWINCH, unix.SIGURG)}},
		"all handled":      {s: signalSets{Caught: blockAll}},
	} {
		if sig, blocked := stopSignal(c.s); sig != int(c.want) || blocked != c.blocked {
			t.Errorf("%s: %d %v", name, sig, blocked)
		}
	}
}

func TestPickHole(t *testing.T) {
	const size = 1 << 30
	free := func(at uint64, rs ...[]Range) bool {
		for _, r := range slices.Concat(rs...) {
			if at < r.End && at+size > r.Start {
				return false
			}
		}
		return true
	}
	used := []Range{{0x400000, 0x500000}, {0x7fff00000000, 0x7ffff0000000}}
	avoid := []Range{{1 << 32, 1 << 33}, {3 << 33, 1<<40 + 4096}}
	at, ok := pickHole(used, avoid, size)
	if !ok || at%holeStep != holeMark || at%pageSize != 0 || !free(at, used, avoid) || at < 1<<33 {
		t.Fatalf("%#x %v", at, ok)
	}
	if _, ok := pickHole([]Range{{0, userEnd}}, nil, size); ok {
		t.Fatal("found a hole in a full address space")
	}
	if at, ok = pickHole(nil, nil, size); !ok || at < lowestHole {
		t.Fatalf("%#x %v", at, ok)
	}
}

func TestDeadStack(t *testing.T) {
	stack := mapping{Start: 0x700000, End: 0x721000, Read: true, Write: true, Name: "[stack]"}
	guard := mapping{Start: 0x100000, End: 0x101000}
	thread := mapping{Start: 0x101000, End: 0x201000, Read: true, Write: true}
	const need = 3200
	if at, ok := deadStack([]mapping{stack}, []uint64{0x720000}, need); !ok || at%64 != 0 || at < stack.Start || at+need > 0x720000-redZone {
		t.Errorf("%#x %v", at, ok)
	}
	if at, ok := deadStack([]mapping{stack}, []uint64{0x700800}, need); ok {
		t.Errorf("a full stack gave %#x", at)
	}
	if at, ok := deadStack([]mapping{stack}, nil, need); !ok || at+need > stack.End-deepMargin {
		t.Errorf("%#x %v", at, ok)
	}
	// The main stack is full, a thread's is not.
	if at, ok := deadStack([]mapping{guard, thread, stack}, []uint64{0x700800, 0x200000}, need); !ok || at < thread.Start || at > 0x200000 {
		t.Errorf("%#x %v", at, ok)
	}
	// Heap with a stack pointer inside, as Go has: no guard, no frame.
	if at, ok := deadStack([]mapping{thread}, []uint64{0x200000}, need); ok {
		t.Errorf("heap gave %#x", at)
	}
}

func TestFindGadgets(t *testing.T) {
	text := make([]byte, 300<<10)
	copy(text[256<<10-2:], gadgetSyscallRet) // across the chunk boundary
	copy(text[299<<10:], gadgetRestorers[1])
	m := mapping{Start: 0x400000, End: 0x400000 + 300<<10, Read: true, Exec: true, Inode: 1}
	read := func(at uint64, b []byte) error { copy(b, text[at-m.Start:]); return nil }
	g := findGadgets([]mapping{m}, read)
	if g.syscallRet != m.Start+256<<10-2 || g.restorer != m.Start+299<<10 {
		t.Fatalf("%#x", g)
	}
	m.Write = true
	if g := findGadgets([]mapping{m}, read); g.complete() {
		t.Fatal("writable code was used")
	}
}

// TestLearn: what a running process shows is found ahead of its stop, once, and
// believed only where it still is.
func TestLearn(t *testing.T) {
	var k Gadgets
	k.Learn(os.Getpid())
	k.Learn(os.Getpid())
	known := k.list()
	if len(known) != 1 || !known[0].complete() {
		t.Fatalf("%#x: a Go program has the code", known)
	}
	maps, err := readMaps(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	read := func(at uint64, b []byte) error { return readRunning(os.Getpid(), at, b) }
	if !known[0].there(maps, read) {
		t.Error("it is not where it was found")
	}
	moved := gadgets{known[0].syscallRet + 1, known[0].restorer}
	if moved.there(maps, read) {
		t.Error("other code was taken for it")
	}
	k.Learn(1 << 30) // no such process: nothing is learnt, nothing happens
	if len(k.list()) != 1 {
		t.Errorf("%#x", k.list())
	}
}

func TestCalls(t *testing.T) {
	calls := []Call{Mmap(1, 2, 3, 4, -1, 6), getpid}
	b := appendCalls(nil, calls)
	if len(b) != 2*CallSize || leUint64(b) != unix.SYS_MMAP || leUint64(b[40:]) != ^uint64(0) || leUint64(b[48:]) != 6 {
		t.Fatalf("% x", b)
	}
	takeResults(calls, b)
	if !calls[0].Failed() || Check(calls) == nil {
		t.Fatal("a call that was never made counts as made")
	}
	minus := int64(-int(unix.EPERM))
	binary.LittleEndian.PutUint64(b[56:], uint64(minus))
	binary.LittleEndian.PutUint64(b[CallSize+56:], 77)
	takeResults(calls, b)
	if calls[0].Errno() != unix.EPERM || calls[1].Errno() != nil || calls[1].Ret != 77 { //nolint:errorlint // plain
		t.Fatalf("%+v", calls)
	}
}

func TestMadeCall(t *testing.T) {
	call := []byte{0xe8, 1, 2, 3, 4}
	for _, c := range []struct {
		code []byte
		want uint64
	}{
		{[]byte{0xbf, 202, 0, 0, 0, 0x31, 0xc0}, 202},
		{[]byte{0xbf, 39, 0, 0, 0, 0xbf, 7, 0, 0, 0}, 7},
		{[]byte{0xbf, 202, 0, 0, 0, 0xbf, 39, 0, 0, 0}, amd64.NoSyscall}, // has no restart block
		{[]byte{0xbf, 202, 1, 0, 0}, amd64.NoSyscall},
		{[]byte{0x89, 0xdf}, amd64.NoSyscall}, // mov edi,ebx
		{nil, amd64.NoSyscall},
	} {
		if got := callBefore(madeCall(append(c.code, call...))); got != c.want {
			t.Errorf("% x: %d, want %d", c.code, int64(got), int64(c.want))
		}
	}
}

func TestLoopOffsets(t *testing.T) {
	at := func(i int, want string) {
		t.Helper()
		if got := string(loopCode[i : i+len(want)]); got != want {
			t.Errorf("%x at %d, want %x", got, i, want)
		}
	}
	leads := func(i, to int) { // a short jump whose distance ends at i
		t.Helper()
		if got := i + int(int8(loopCode[i-1])); got != to {
			t.Errorf("the jump before %d leads to %d, want %d", i, got, to)
		}
	}
	at(loopLook, "\x45\x39\x3e")
	at(loopAfterCall-2, "\x0f\x05")
	at(loopDone, "\x48\xc7\x45")
	at(loopWayBack, "\x4c\x89\xec")
	leads(loopDone, 0)
	leads(loopLook+5, loopDone)
	page := codePage(0x1000, 0, 0)
	if string(page[:4]) != string(binary.LittleEndian.AppendUint32(nil, uint32(noGuard))) {
		t.Error("the word without a guard")
	}
	if to := scratchAbort + len(abortCode) + int(int8(abortCode[1])); to != scratchLoop {
		t.Errorf("a sequence that was interrupted goes on at %d", to)
	}
	if to := scratchLoop + 7 + int(int32(binary.LittleEndian.Uint32(loopCode[3:]))); to != scratchSection {
		t.Errorf("the section is looked for at %d", to)
	}
	if r := (amd64.Registers{Rip: 0x1000 + scratchLoop + loopAfterCall - 2}); rseqAbort(r, page[scratchSection:]).Rip != 0x1000+scratchAbort {
		t.Error("the call is not in the section")
	}
	if r := (amd64.Registers{Rip: 0x1000 + scratchLoop + loopAfterCall}); rseqAbort(r, page[scratchSection:]) != r {
		t.Error("what is behind the call is in the section")
	}
	if string(stubCode[stubRestorer:]) != string(gadgetRestorers[1]) || scratchLoop+len(loopCode) > scratchAbort-4 {
		t.Fatal("stubCode")
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte("00400000-00500000 r-xp 00001000 fe:00 12   /bin/x y\n"), []byte("State:\tS\nNSpid:\t1\t2\nSigBlk:\t0f\n"))
	f.Fuzz(func(_ *testing.T, maps, status []byte) {
		_, _ = parseMaps(maps)
		parseStatus(status)
		isVfork(string(status))
		callBefore(maps)
	})
}
