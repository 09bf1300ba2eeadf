// SPDX-License-Identifier: Apache-2.0

package target_test

import (
	"os"
	"os/exec"
	"syscall"
	"testing"

	"github.com/io-mig/mig/layers/kernel/kerneltest"
	"github.com/io-mig/mig/layers/kernel/procfs"
	"github.com/io-mig/mig/layers/kernel/target"
)

func TestInNamespace(t *testing.T) {
	kerneltest.NeedRoot(t)
	cmd := exec.Command("sleep", "60")
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET | syscall.CLONE_NEWIPC | syscall.CLONE_NEWUTS}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	theirs := procfs.Host().Process(cmd.Process.Pid)
	for _, kind := range []string{"net", "ipc", "uts"} {
		var in string
		err := target.InNamespace(theirs.Path("ns/"+kind), func() (err error) {
			in, err = os.Readlink("/proc/thread-self/ns/" + kind)
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		want, err := os.Readlink(theirs.Path("ns/" + kind))
		if err != nil {
			t.Fatal(err)
		}
		if here, _ := os.Readlink("/proc/thread-self/ns/" + kind); in != want || here == want {
			t.Errorf("%s: ran in %s instead of %s, and is in %s afterwards", kind, in, want, here)
		}
	}
	if err := target.InNamespace("/proc/self/ns/none", func() error { return nil }); err == nil {
		t.Error("a namespace that does not exist was entered")
	}
}
