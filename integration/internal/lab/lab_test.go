// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"context"
	"os"
	"strings"
	"testing"
)

// TestHostsMeetOnTheBridge: three hosts reach each other, and not when a cable
// is out; what is theirs is not seen by the others or the machine.
func TestHostsMeetOnTheBridge(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root")
	}
	l, err := New("alpha", "beta", "client")
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	}()
	alpha, beta := l.Hosts[0], l.Hosts[1]
	for _, h := range l.Hosts[1:] {
		if err := reach(alpha, h.IP); err != nil {
			t.Errorf("from alpha to %s: %v", h.Name, err)
		}
	}
	if err := beta.Disconnect(); err != nil {
		t.Fatal(err)
	}
	if err := reach(alpha, beta.IP); err == nil {
		t.Error("beta is reached without a cable")
	}
	if err := beta.Connect(); err != nil {
		t.Fatal(err)
	}
	if err := alpha.Run("echo x >/run/lab-test"); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(alpha.Path("/run/lab-test")); err != nil {
		t.Error(err)
	}
	for _, other := range []string{"/run/lab-test", beta.Path("/run/lab-test")} {
		if _, err := os.Stat(other); err == nil {
			t.Errorf("%s is seen", other)
		}
	}
	out, err := alpha.Command(t.Context(), "cat", "/proc/self/cgroup").Output()
	if err != nil || strings.Contains(string(out), l.Name) {
		t.Errorf("cgroups: %s %v", out, err)
	}
}

// reach sends one packet from a host to an address.
func reach(h *Host, ip string) error {
	return h.Command(context.Background(), "busybox", "ping", "-c1", "-W2", ip).Run()
}
