// SPDX-License-Identifier: Apache-2.0

package credential

import (
	"os"
	"slices"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/io-mig/mig/layers/kernel/procfs"
	"github.com/io-mig/mig/layers/kernel/target"
)

func TestKeysIn(t *testing.T) {
	list := []procfs.Key{
		{UID: 5, Type: "keyring", Describe: "_ses.web: 7"}, {Type: "user", Describe: "_ses.web: 7"}, {Type: "keyring", Describe: "_ses.web: 2"},
		{Type: "keyring", Describe: "_ses.web2: 9"}, {Type: "keyring", Describe: "_ses.db: empty"}, {Type: "keyring", Describe: "_ses.x: -1"},
	}
	for name, want := range map[string]int{"_ses.web": 2, "_ses.web2": 9, "_ses.db": 0, "_ses.x": 0, "_ses.none": 0} {
		if got := keysIn(list, name, 0); got != want {
			t.Errorf("%s: %d keys, not %d", name, got, want)
		}
	}
}

// TestKeysAreSeen as their owner, who is another user, and the engine's own ids
// stay what they were.
func TestKeysAreSeen(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("becomes another user: needs root")
	}
	const uid, name = 54321, "_ses.mig-keys-test"
	added := make(chan error)
	done := make(chan struct{})
	ended := make(chan error)
	go func() {
		ended <- target.AsFileUser(uid, func() error {
			// The keyring is the thread's and ends with it.
			err := joinWithKeys(name, uid)
			added <- err
			<-done
			return err
		})
	}()
	err := <-added
	var list []procfs.Key
	if err == nil {
		err = target.AsFileUser(uid, func() (err error) { list, err = procfs.Host().Keys(); return err })
	}
	close(done)
	if err := <-ended; err != nil {
		t.Fatal(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	if got := keysIn(list, name, uid); got != 2 {
		t.Errorf("%d keys are seen, not 2", got)
	}
	own, err := procfs.Host().Keys()
	if err != nil {
		t.Fatal(err)
	}
	if slices.ContainsFunc(own, func(k procfs.Key) bool { return k.UID == uid }) {
		t.Error("this test's own threads see another user's keys")
	}
}

// joinWithKeys makes this thread a user's, with a session keyring with two keys.
func joinWithKeys(name string, uid uintptr) error {
	// Of unix.Setresuid all threads would be.
	if _, _, e := unix.RawSyscall(unix.SYS_SETRESUID, uid, uid, uid); e != 0 {
		return os.NewSyscallError("setresuid", e)
	}
	ring, err := unix.KeyctlJoinSessionKeyring(name)
	if err != nil {
		return os.NewSyscallError("keyctl", err)
	}
	for _, key := range []string{"one", "two"} {
		if _, err := unix.AddKey("user", key, []byte("secret"), ring); err != nil {
			return os.NewSyscallError("add_key", err)
		}
	}
	return nil
}
