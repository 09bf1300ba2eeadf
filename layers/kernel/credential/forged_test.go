// SPDX-License-Identifier: Apache-2.0

//go:build linux

package credential

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/proto"

	"github.com/io-mig/mig/layers/control"
	"github.com/io-mig/mig/layers/kernel"
	"github.com/io-mig/mig/layers/kernel/kerneltest"
	"github.com/io-mig/mig/layers/kernel/procfs"
	"github.com/io-mig/mig/layers/kernel/target"
	"github.com/io-mig/mig/spec/record"
	"github.com/io-mig/mig/spec/state"
)

const (
	capChown = 1 << unix.CAP_CHOWN
	capBind  = 1 << unix.CAP_NET_BIND_SERVICE
	capAdmin = 1 << unix.CAP_SYS_ADMIN
)

// userSpec is a spec that starts its process as uid 1000 with few
// capabilities in reach.
func userSpec() *kerneltest.Allowed {
	return &kerneltest.Allowed{
		UID: 1000, GID: 1000, Groups: []uint32{1000}, Bounding: capChown | capBind, NoNewPrivileges: true,
		Limits: map[int]unix.Rlimit{unix.RLIMIT_NOFILE: {Cur: 9, Max: 9}},
	}
}

// forge returns a copy of an image with changed credentials, with checksums
// that are right.
func forge(t *testing.T, im *kerneltest.Image, process func(*state.ProcessLimits), thread func(*state.ThreadCredential)) *kerneltest.Image {
	t.Helper()
	out := &kerneltest.Image{Processes: im.Processes}
	for _, r := range im.Records {
		var m proto.Message = &state.ProcessLimits{}
		if r.Kind == KindThreads {
			m = &state.ThreadCredentials{}
		}
		if r.Subsystem == Name && r.Kind != KindFilter {
			if err := proto.Unmarshal(r.Payload, m); err != nil {
				t.Fatal(err)
			}
			switch m := m.(type) {
			case *state.ProcessLimits:
				if process != nil {
					process(m)
				}
			case *state.ThreadCredentials:
				for _, th := range m.Thread {
					if thread != nil {
						thread(th)
					}
				}
			}
			b, err := proto.Marshal(m)
			if err != nil {
				t.Fatal(err)
			}
			r = &record.Record{Header: r.Header, Payload: b}
			if err := r.Seal(); err != nil {
				t.Fatal(err)
			}
		}
		out.Records = append(out.Records, r)
	}
	return out
}

// asUser makes an image of a root process look like one of userSpec.
func asUser(m *state.ThreadCredential) {
	m.Uid = &state.Ids{Real: 1000, Effective: 1000, Saved: 1000, FileSystem: 1000}
	m.Gid = &state.Ids{Real: 1000, Effective: 1000, Saved: 1000, FileSystem: 1000}
	m.Group, m.Bounding, m.NoNewPrivileges = []uint32{1000}, capChown|capBind, true
	m.Permitted, m.Effective, m.Inheritable, m.Ambient, m.SecureBits = 0, 0, 0, 0, 0
}

func fewFiles(m *state.ProcessLimits) {
	m.Limit[unix.RLIMIT_NOFILE] = &state.ResourceLimit{Soft: 5, Hard: 9}
}

// TestForgedImages: an image that asks for more than the spec gives is refused
// by name, nothing is left of it, and the same image without that is taken.
func TestForgedImages(t *testing.T) {
	p := kerneltest.Program{Source: "testdata/credentials.c", Args: []string{"user"}, Allowed: userSpec()}
	c := kerneltest.Start(t, p)
	im, err := c.Export(false, all...)
	if err != nil {
		t.Fatal(err)
	}
	c.Stop()
	for want, change := range map[string]func(*state.ThreadCredential){
		"bounding set with CAP_SYS_ADMIN":               func(m *state.ThreadCredential) { m.Bounding |= capAdmin },
		"permitted set with CAP_SYS_ADMIN":              func(m *state.ThreadCredential) { m.Permitted |= capAdmin },
		"effective capabilities that are not permitted": func(m *state.ThreadCredential) { m.Effective, m.Permitted = capChown, 0 },
		"permitted set with CAP_CHOWN":                  func(m *state.ThreadCredential) { m.Permitted |= capChown },
		"inheritable set with CAP_CHOWN":                func(m *state.ThreadCredential) { m.Inheritable |= capChown },
		"uid 0; allowed is 1000":                        func(m *state.ThreadCredential) { m.Uid.Saved = 0 },
		"uid 1; allowed is 1000":                        func(m *state.ThreadCredential) { m.Uid.FileSystem = 1 },
		"gid 0; allowed is 1000":                        func(m *state.ThreadCredential) { m.Gid.Real = 0 },
		"group 27; allowed are [1000]":                  func(m *state.ThreadCredential) { m.Group = append(m.Group, 27) },
		"secure bits 0x4; the spec grants":              func(m *state.ThreadCredential) { m.SecureBits = secbitNoSetuidFixup },
		"seccomp filter 0 of 0":                         func(m *state.ThreadCredential) { m.SeccompMode, m.SeccompFilters, m.Filter = 2, 1, []uint32{0} },
		"seccomp mode 2 with 1 filters":                 func(m *state.ThreadCredential) { m.SeccompMode, m.SeccompFilters = 2, 1 },
		"capability 63; allowed are CAP_CHO":            func(m *state.ThreadCredential) { m.Bounding |= 1 << 63 },
	} {
		t.Run(want, func(t *testing.T) {
			_, err := c.Import(forge(t, im, fewFiles, func(m *state.ThreadCredential) { asUser(m); change(m) }), all...)
			if err == nil || !strings.Contains(err.Error(), want) {
				t.Fatalf("error is %v", err)
			}
		})
	}
	for want, change := range map[string]func(*state.ProcessLimits){
		"RLIMIT_NOFILE of 10; allowed is 9":                          func(m *state.ProcessLimits) { m.Limit[unix.RLIMIT_NOFILE].Hard = 10 },
		"RLIMIT_NOFILE of unlimited; the container was started with": func(m *state.ProcessLimits) { m.Limit[unix.RLIMIT_NOFILE].Hard = procfs.Unlimited },
	} {
		t.Run(want, func(t *testing.T) {
			_, err := c.Import(forge(t, im, func(m *state.ProcessLimits) { fewFiles(m); change(m) }, asUser), all...)
			if !errors.Is(err, ErrBeyondSpec) || !strings.Contains(err.Error(), want) {
				t.Fatalf("error is %v", err)
			}
		})
	}
	// Without no_new_privs in the image the spec's holds.
	n, err := c.Import(forge(t, im, fewFiles, func(m *state.ThreadCredential) { asUser(m); m.NoNewPrivileges = false }), all...)
	if err != nil {
		t.Fatal(err)
	}
	narrowed(t, n.Pid)
}

// narrowed checks that a process has what userSpec gives and no more.
func narrowed(t *testing.T, pid int) {
	t.Helper()
	p := procfs.Host().Process(pid)
	tids, err := p.Threads()
	if err != nil || len(tids) != 5 {
		t.Fatalf("threads %v: %v", tids, err)
	}
	for _, tid := range tids {
		st, err := p.Thread(tid).Status()
		if err != nil {
			t.Fatal(err)
		}
		if st.Cap != (procfs.CapSets{Bounding: capChown | capBind}) {
			t.Errorf("thread %d: %+v", tid, st.Cap)
		}
		if id := (procfs.IDs{Real: 1000, Effective: 1000, Saved: 1000, FS: 1000}); st.UID != id || st.GID != id || !slices.Equal(st.Groups, []uint32{1000}) {
			t.Errorf("thread %d: uid %v gid %v groups %v", tid, st.UID, st.GID, st.Groups)
		}
		if !st.NoNewPrivs {
			t.Errorf("thread %d has no no_new_privs", tid)
		}
	}
}

// TestSpecOfUser: a program that was started as the spec's user comes back as
// it, several times.
func TestSpecOfUser(t *testing.T) {
	last := lastCapabilities(t)
	for name, filtered := range map[string]bool{"no seccomp": false, "a filter that denies the engine's calls": true} {
		t.Run(name, func(t *testing.T) {
			kerneltest.RoundTrip(t, kerneltest.Program{
				Source: "testdata/credentials.c", Args: []string{"user"}, UID: 1000, GID: 1000, Generations: 3, LeaveRunning: true, Filtered: filtered,
				Allowed: &kerneltest.Allowed{UID: 1000, GID: 1000, Groups: []uint32{1000}, Bounding: last},
			}, all...)
		})
	}
}

// lastCapabilities is the test's own bounding set, which a program inherits.
func lastCapabilities(t *testing.T) uint64 {
	t.Helper()
	st, err := procfs.Host().Process(os.Getpid()).Status()
	if err != nil {
		t.Fatal(err)
	}
	return st.Cap.Bounding
}

// blind has no pre-flight.
type blind struct{ kernel.Subsystem }

// TestSeccompOwn: what a program has loaded itself comes back on top of what the
// spec loads, in each of its threads, several times.
func TestSeccompOwn(t *testing.T) {
	for name, p := range map[string]kerneltest.Program{
		"alone":               {},
		"above the spec's":    {Filtered: true},
		"in a user namespace": {UserNamespace: true, Filtered: true},
		"as a user":           {UID: 1000, GID: 1000, Filtered: true, Allowed: &kerneltest.Allowed{UID: 1000, GID: 1000, Groups: []uint32{1000}, Bounding: lastCapabilities(t)}},
	} {
		t.Run(name, func(t *testing.T) {
			p.Source, p.Generations, p.LeaveRunning = "testdata/filtered.c", 3, true
			kerneltest.RoundTrip(t, p, all...)
		})
	}
}

// TestSeccompMoved: so it does in a move with rounds ahead, and in one that leaves
// memory behind.
func TestSeccompMoved(t *testing.T) {
	for _, s := range []control.Strategy{control.PreCopy, control.PostCopy} {
		c := kerneltest.Start(t, kerneltest.Program{Source: "testdata/filtered.c", Filtered: true})
		n, _, err := c.Move(s, all...)
		if err != nil {
			t.Fatal(err)
		}
		n.Verify()
	}
}

// TestSeccompMissing: a program with fewer filters than the spec loads is found
// before anything is stopped, and after that while it can still go on.
func TestSeccompMissing(t *testing.T) {
	c := kerneltest.Start(t, kerneltest.Program{Source: "testdata/credentials.c", Args: []string{"user"}, SeccompFilters: 1})
	_, err := c.Export(true, all...)
	if err == nil || !strings.Contains(err.Error(), "0 seccomp filters: the spec loads 1") || !strings.Contains(err.Error(), fmt.Sprintf("pid %d", c.Pid)) {
		t.Fatalf("error is %v", err)
	}
	list := slices.Clone(all)
	list[3] = func(env target.Env) kernel.Subsystem { return blind{New(env)} }
	if _, err := c.Export(false, list...); err == nil || !strings.Contains(err.Error(), "0 seccomp filters: the spec loads 1") {
		t.Fatalf("error is %v", err)
	}
	c.Verify()
}

// TestSeccompOtherSpec: a frame without the filter that the program's spec loaded
// is not taken.
func TestSeccompOtherSpec(t *testing.T) {
	c := kerneltest.Start(t, kerneltest.Program{Source: "testdata/filtered.c", SeccompFilters: 1})
	_, err := c.Next(all...)
	if err == nil || !strings.Contains(err.Error(), "ran under seccomp mode 2 with 1 filters of its spec, the spec of this request gives mode 0") {
		t.Fatalf("error is %v", err)
	}
}
