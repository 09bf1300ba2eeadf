// SPDX-License-Identifier: Apache-2.0

package credential

import (
	"encoding/binary"
	"fmt"

	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/proto"

	"github.com/io-mig/mig/layers/kernel/procfs"
	"github.com/io-mig/mig/layers/kernel/target"
	"github.com/io-mig/mig/layers/kernel/tracer"
	"github.com/io-mig/mig/spec/state"
)

// Offsets in a thread's block of parameters.
const (
	setHeader = 0  // struct __user_cap_header_struct
	setFirst  = 8  // the sets while ids are changed
	setLast   = 32 // the sets of the image
	setGroups = 56
)

// settle gives each thread its credentials, behind what other subsystems have
// it do, for which it may need the frame's rights, and runs all of it. A frame's
// threads begin as root with more capabilities than the spec gives.
func settle(t *target.Task, k *saved) error {
	if len(k.threads) != len(t.Threads) {
		return fmt.Errorf("%w: credentials of %d threads for %d threads", errImage, len(k.threads), len(t.Threads))
	}
	now, err := t.Proc.Status()
	if err != nil {
		return err
	}
	begun, err := begin(t, &now, len(k.threads))
	if err != nil {
		return err
	}
	var b []byte
	offsets := make([]int, len(k.threads))
	for i, m := range k.threads {
		offsets[i] = len(b)
		b = appendBlock(b, m, now.Cap.Permitted)
	}
	at, err := t.PutLater(b)
	if err != nil {
		return err
	}
	seen, loaded := map[int32]bool{}, map[uint32]uint64{}
	for i, m := range k.threads {
		th := t.Threads[int(m.Tid)]
		if th == nil || seen[m.Tid] {
			return fmt.Errorf("%w: credentials of thread %d, which does not exist or has some already", errImage, m.Tid)
		}
		seen[m.Tid] = true
		own, err := k.loads(m.Filter[k.loaded:], loaded, t.PutLater)
		if err != nil {
			return err
		}
		if len(own) > 0 {
			t.Later(th, own, tracer.Check)
		}
		nnp := m.NoNewPrivileges || t.Allowed().NoNewPrivileges
		t.Later(th, changes(m, begun, at+uint64(offsets[i]), nnp), checkChanges)
		t.Later(th, []tracer.Call{tracer.Prctl(unix.PR_GET_SECUREBITS)}, func(calls []tracer.Call) error {
			return sameSecureBits(m, calls[0].Ret)
		})
	}
	if th := t.Doomed(); th != nil { // nobody can tell what it had of its own
		m := proto.CloneOf(k.threads[0])
		m.SeccompMode = 0
		t.Later(th, changes(m, begun, at+uint64(offsets[0]), m.NoNewPrivileges || t.Allowed().NoNewPrivileges), checkChanges)
	}
	// A change of ids takes it away: it comes behind the last one.
	alone := len(k.threads) == 1 && t.Doomed() == nil
	if alone {
		t.Later(t.Traced.Leader(), []tracer.Call{dumpable(k.process.Dumpable)}, tracer.Check)
	}
	if err := t.RunLater(); err != nil {
		return err
	}
	if !alone {
		if err := t.Run([]tracer.Call{dumpable(k.process.Dumpable)}); err != nil {
			return err
		}
	}
	return t.EndLeader()
}

// narrowFrom is how many threads make it worth to narrow beforehand.
const narrowFrom = 2

// narrow drops from the bounding set what no thread keeps, nor needs in it to
// have it in its inheritable set, while the process has one thread: the others
// are born with the rest, and each drop is a change of a thread's credentials.
func narrow(t *target.Task, k *saved) error {
	if len(k.threads) < narrowFrom {
		return nil
	}
	now, err := t.Proc.Status()
	if err != nil {
		return err
	}
	keep := uint64(0)
	for _, m := range k.threads {
		keep |= m.Bounding | m.Inheritable
	}
	return t.Run(drops(now.Cap.Bounding &^ keep))
}

// drops take capabilities out of the bounding set.
func drops(set uint64) []tracer.Call {
	var calls []tracer.Call
	for n := range uint64(64) {
		if set>>n&1 != 0 {
			calls = append(calls, tracer.Prctl(unix.PR_CAPBSET_DROP, n))
		}
	}
	return calls
}

// appendBlock writes the parameters of changes.
func appendBlock(b []byte, m *state.ThreadCredential, permitted uint64) []byte {
	le := binary.LittleEndian
	b = le.AppendUint32(b, capVersion)
	b = le.AppendUint32(b, 0) // the caller
	for _, sets := range [][3]uint64{
		{permitted, permitted, m.Inheritable}, {m.Effective, m.Permitted, m.Inheritable},
	} {
		for _, half := range []int{0, 32} {
			for _, set := range sets {
				b = le.AppendUint32(b, uint32(set>>half))
			}
		}
	}
	for _, g := range m.Group {
		b = le.AppendUint32(b, g)
	}
	return append(b, make([]byte, -len(b)&7)...)
}

// changes turn root with the frame's capabilities into what the image asks
// for. Each step needs a right that a later one takes away:
//
//	inheritable set   while the bounding set still holds its members
//	bounding set      CAP_SETPCAP
//	groups, gids, uids, with the automatic loss of capabilities turned off
//	ambient set       its members permitted and inheritable, not forbidden by secure bits
//	secure bits       CAP_SETPCAP
//	all sets          at last without what the frame had beyond the spec
//
// Of a thread that has all the rest already only its sets are changed.
func changes(m *state.ThreadCredential, now *beginning, at uint64, nnp bool) []tracer.Call {
	last := tracer.Syscall(unix.SYS_CAPSET, at+setHeader, at+setLast)
	if now.alike(m) {
		return append([]tracer.Call{last}, ends(m, nnp)...)
	}
	calls := []tracer.Call{tracer.Syscall(unix.SYS_CAPSET, at+setHeader, at+setFirst)}
	calls = append(calls, drops(now.Cap.Bounding&^m.Bounding)...)
	u, g := m.Uid, m.Gid
	calls = append(calls,
		tracer.Prctl(unix.PR_SET_SECUREBITS, secbitNoSetuidFixup),
		tracer.Syscall(unix.SYS_SETGROUPS, uint64(len(m.Group)), at+setGroups),
		tracer.Syscall(unix.SYS_SETRESGID, uint64(g.Real), uint64(g.Effective), uint64(g.Saved)),
		tracer.Syscall(unix.SYS_SETFSGID, uint64(g.FileSystem)),
		tracer.Syscall(unix.SYS_SETRESUID, uint64(u.Real), uint64(u.Effective), uint64(u.Saved)),
		tracer.Syscall(unix.SYS_SETFSUID, uint64(u.FileSystem)),
		tracer.Prctl(unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0),
	)
	for n := range uint64(64) {
		if m.Ambient>>n&1 != 0 {
			calls = append(calls, tracer.Prctl(unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_RAISE, n, 0, 0))
		}
	}
	calls = append(calls, tracer.Prctl(unix.PR_SET_SECUREBITS, uint64(m.SecureBits)), last)
	return append(calls, ends(m, nnp)...)
}

// ends are what may not come before anything else.
func ends(m *state.ThreadCredential, nnp bool) (calls []tracer.Call) {
	if nnp {
		calls = append(calls, tracer.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
	}
	if int(m.SeccompMode) == procfs.SeccompStrict {
		calls = append(calls, tracer.Prctl(unix.PR_SET_SECCOMP, unix.SECCOMP_MODE_STRICT))
	}
	return calls
}

// checkChanges: setfsuid(2) and setfsgid(2) return the former id whatever
// happens; verify looks at what became of them.
func checkChanges(calls []tracer.Call) error {
	for i := range calls {
		if nr := calls[i].Nr; nr == unix.SYS_SETFSUID || nr == unix.SYS_SETFSGID {
			continue
		}
		if calls[i].Failed() {
			return &tracer.CallError{Index: i, Call: calls[i]}
		}
	}
	return nil
}

// dumpable comes after all threads' ids, since every change of them resets it. 2
// can only be had by such a change, with the host's fs.suid_dumpable; 0 is the
// closest that is not weaker.
func dumpable(want uint32) tracer.Call {
	if want == 2 {
		want = 0
	}
	return tracer.Prctl(unix.PR_SET_DUMPABLE, uint64(want))
}

// setLimits sets all limits by the task itself, which needs no right to lower
// them.
func setLimits(t *target.Task, limits []*state.ResourceLimit) error {
	sc, err := t.Traced.Scratch()
	if err != nil {
		return err
	}
	defer sc.Release(sc.Mark())
	var b []byte
	for _, l := range limits {
		b = binary.LittleEndian.AppendUint64(b, l.Soft)
		b = binary.LittleEndian.AppendUint64(b, l.Hard)
	}
	at, err := sc.Put(b)
	if err != nil {
		return err
	}
	calls := make([]tracer.Call, len(limits))
	for r := range limits {
		calls[r] = tracer.Syscall(unix.SYS_PRLIMIT64, 0, uint64(r), at+uint64(16*r), 0)
	}
	if err := t.Traced.Run(t.Traced.Leader(), calls); err != nil {
		return err
	}
	for r := range calls {
		if err := calls[r].Errno(); err != nil {
			return fmt.Errorf("set RLIMIT_%s to %s, hard %s: %w", limitNames[r], limitText(limits[r].Soft), limitText(limits[r].Hard), err)
		}
	}
	return nil
}
