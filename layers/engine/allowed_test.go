// SPDX-License-Identifier: Apache-2.0

package engine

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

func TestAllowed(t *testing.T) {
	a, err := allowed(&specs.Spec{Process: &specs.Process{
		User:            specs.User{UID: 7, GID: 8, AdditionalGids: []uint32{9}},
		NoNewPrivileges: true,
		Capabilities:    &specs.LinuxCapabilities{Bounding: []string{"CAP_CHOWN", "cap_setuid", "CAP_CHECKPOINT_RESTORE", "CAP_FUTURE"}, Effective: []string{"CAP_KILL"}},
		Rlimits:         []specs.POSIXRlimit{{Type: "RLIMIT_NOFILE", Soft: 10, Hard: 20}},
	}})
	if err != nil {
		t.Fatal(err)
	}
	if a.UID != 7 || a.GID != 8 || !slices.Equal(a.Groups, []uint32{9}) || !a.NoNewPrivileges {
		t.Errorf("identity: %+v", a)
	}
	if a.Bounding != 1<<unix.CAP_CHOWN|1<<unix.CAP_SETUID|1<<unix.CAP_CHECKPOINT_RESTORE || a.Effective != 0 {
		t.Errorf("capabilities: %+v", a)
	}
	if l := a.Limits[unix.RLIMIT_NOFILE]; l.Cur != 10 || l.Max != 20 {
		t.Errorf("limits: %+v", a.Limits)
	}
	if _, err := allowed(&specs.Spec{}); err == nil {
		t.Error("a spec without a process was accepted")
	}
	if _, err := allowed(&specs.Spec{Process: &specs.Process{Rlimits: []specs.POSIXRlimit{{Type: "RLIMIT_X"}}}}); err == nil {
		t.Error("an unknown limit was accepted")
	}
}

// TestAllowedOfUser: a user's program has no more than the ambient set, whatever
// the other sets say.
func TestAllowedOfUser(t *testing.T) {
	sets := &specs.LinuxCapabilities{
		Bounding: []string{"CAP_SETUID", "CAP_KILL"}, Permitted: []string{"CAP_SETUID", "CAP_KILL"}, Effective: []string{"CAP_SETUID", "CAP_KILL"},
		Inheritable: []string{"CAP_KILL"}, Ambient: []string{"CAP_KILL", "CAP_CHOWN"},
	}
	for uid, want := range map[uint32]uint64{0: 1<<unix.CAP_SETUID | 1<<unix.CAP_KILL, 1000: 1 << unix.CAP_KILL} {
		a, err := allowed(&specs.Spec{Process: &specs.Process{User: specs.User{UID: uid}, Capabilities: sets}})
		if err != nil {
			t.Fatal(err)
		}
		if a.Permitted != want || a.Effective != want || a.Bounding != 1<<unix.CAP_SETUID|1<<unix.CAP_KILL {
			t.Errorf("uid %d: %+v", uid, a)
		}
		if a.AnyUser() != (uid == 0) {
			t.Errorf("uid %d acts as any user: %v", uid, a.AnyUser())
		}
	}
}

func TestMissingFeaturesAreNamed(t *testing.T) {
	err := checkFeatures([]string{"avx512f", "sse2", "amx_tile"}, []string{"sse2", "avx2"})
	var missing *MissingFeaturesError
	if !errors.As(err, &missing) || !slices.Equal(missing.Missing, []string{"avx512f", "amx_tile"}) || !strings.Contains(err.Error(), "avx512f") {
		t.Errorf("got %v", err)
	}
	if err := checkFeatures([]string{"sse2"}, []string{"sse2", "avx2"}); err != nil {
		t.Error(err)
	}
}
