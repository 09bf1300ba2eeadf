// SPDX-License-Identifier: Apache-2.0

package faults

import (
	"context"
	"encoding/json"
	"os/exec"
	"testing"
	"time"
)

// finding is one item that mig check names.
type finding struct {
	Pid       int
	FD        int
	Subsystem string
	What      string
	Why       string
	Remedy    string
}

// checkReport is the output of mig check --json.
type checkReport struct {
	Container string
	Pid       int
	Possible  bool
	Findings  []finding
	Warnings  []finding
}

// check runs mig check on a victim.
func (v *victim) check() (report checkReport, code int) {
	v.t.Helper()
	code = v.host.mig(v.t, &report, "check", "--json", "-n", v.host.Namespace, "--state", v.host.Dir+"/state", v.id)
	return report, code
}

// requestStatus is what mig status --json says of a request.
type requestStatus struct {
	ID        string
	Kind      string
	Container string
	Phase     string
	Created   time.Time
	Progress  struct {
		Round  int
		Phases []struct {
			State string
			At    time.Time
		}
		Downtime time.Duration
		Bytes    uint64
		Warnings []string
	}
	Failure *struct {
		Kind, Text, At, End string
		Findings            []finding
	}
}

// requests are those of this host's namespace, the newest first.
func (h *host) requests(t *testing.T) (all []requestStatus) {
	t.Helper()
	if code := h.mig(t, &all, "status", "--json", "-n", h.Namespace); code != 0 {
		t.Fatalf("mig status ends with %d", code)
	}
	return all
}

// mig runs the program and decodes what it prints.
func (h *host) mig(t *testing.T, into any, args ...string) (code int) {
	t.Helper()
	cmd := exec.Command(h.Tree.Bin("mig"), args...)
	out, err := cmd.Output()
	var stderr []byte
	if exit, ok := err.(*exec.ExitError); ok { //nolint:errorlint // as Output documents it
		code, stderr = exit.ExitCode(), exit.Stderr
	} else if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(out, into); err != nil {
		t.Fatalf("mig %v: %v\n%s%s", args, err, out, stderr)
	}
	return code
}

// command runs a program to its end.
func command(ctx context.Context, name string, args ...string) (string, error) {
	out, err := exec.CommandContext(ctx, name, args...).CombinedOutput()
	return string(out), err
}
