// SPDX-License-Identifier: Apache-2.0

package driver

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"

	"github.com/io-mig/mig/integration/bench/machine"
)

// kdatPath is where CRIU keeps what it has found out about the kernel. It does
// so only where /run is a tmpfs; elsewhere each call finds out again, which
// takes longer than the rest of a small checkpoint.
const kdatPath = "/run/criu.kdat"

// Kdat gives CRIU its cache, whatever /run is, for the time of a benchmark.
type Kdat struct {
	content []byte
	ours    bool
}

// NewKdat has CRIU probe the kernel once, in a mount namespace with a tmpfs on
// /run. Where CRIU keeps its cache by itself, it leaves everything as it is.
func NewKdat(ctx context.Context, criu string) (*Kdat, error) {
	if _, err := os.Lstat(kdatPath); err == nil || machine.IsTmpfs("/run") {
		return &Kdat{}, nil
	}
	cmd := exec.CommandContext(ctx, "unshare", "--mount", "sh", "-c",
		`mount -t tmpfs none /run && "$0" check >&2 && cat `+kdatPath, criu)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	content, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("have CRIU probe the kernel: %w: %s", err, tail(stderr.String()))
	}
	return &Kdat{content: content, ours: true}, nil
}

// Ours tells whether the cache is there only thanks to Put.
func (k *Kdat) Ours() bool { return k.ours }

// Put puts the cache where CRIU looks for it.
func (k *Kdat) Put() error {
	if !k.ours {
		return nil
	}
	return os.WriteFile(kdatPath, k.content, 0o600)
}

// Remove undoes Put.
func (k *Kdat) Remove() error {
	if !k.ours {
		return nil
	}
	if err := os.Remove(kdatPath); err != nil && !os.IsNotExist(err) {
		return err
	}
	return nil
}
