// SPDX-License-Identifier: Apache-2.0

package parity

import (
	"os"
	"os/exec"
	"path/filepath"

	"strings"
)

// defaultMode is the mode of device files that operations add.
const defaultMode = os.FileMode(0o640)

// rootfs makes a root file system with busybox in the operation's directory.
func (p *probe) rootfs() string {
	p.t.Helper()
	root := filepath.Join(p.dir, "rootfs")
	for _, dir := range []string{"bin", "proc", "dev", "sys", "tmp", "etc", "run", "var/lib/some"} {
		if err := os.MkdirAll(filepath.Join(root, dir), 0o755); err != nil {
			p.t.Fatal(err)
		}
	}
	busybox, err := exec.LookPath("busybox")
	if err != nil {
		p.t.Fatal(err)
	}
	content, err := os.ReadFile(busybox)
	if err != nil {
		p.t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(root, "bin", "busybox"), content, 0o755); err != nil {
		p.t.Fatal(err)
	}
	applets, err := exec.Command(busybox, "--list").Output()
	if err != nil {
		p.t.Fatal(err)
	}
	for applet := range strings.FieldsSeq(string(applets)) {
		if applet == "busybox" {
			continue
		}
		if err := os.Symlink("busybox", filepath.Join(root, "bin", applet)); err != nil {
			p.t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(root, "etc", "group"), []byte("root:x:0:\n"), 0o644); err != nil {
		p.t.Fatal(err)
	}
	return root
}
