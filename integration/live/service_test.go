// SPDX-License-Identifier: Apache-2.0

package live

import (
	"bufio"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/io-mig/mig/integration/internal/daemon"
	"github.com/io-mig/mig/integration/internal/image"
)

// restrict is the subcommand of this program that runs another one as systemd's
// RestrictAddressFamilies has it (systemd.exec(5)).
const restrict = "restrict"

// runRestricted becomes a program that may make sockets of some families only, given
// by their numbers with commas between them. It returns if that fails.
func runRestricted(families string, command []string) error {
	const socketCall, denied = unix.SYS_SOCKET, unix.SECCOMP_RET_ERRNO | uint32(unix.EAFNOSUPPORT)
	allowed := strings.Split(families, ",")
	// struct seccomp_data of seccomp(2): the number at 0, the first argument at 16.
	program := []unix.SockFilter{
		{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: 0},
		{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: socketCall, Jf: uint8(len(allowed) + 2)},
		{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: 16},
	}
	for i, number := range allowed {
		n, err := strconv.ParseUint(number, 10, 32)
		if err != nil {
			return err
		}
		program = append(program, unix.SockFilter{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: uint32(n), Jt: uint8(len(allowed) - i)})
	}
	program = append(program,
		unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: denied},
		unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ALLOW})
	runtime.LockOSThread()
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return err
	}
	filter := unix.SockFprog{Len: uint16(len(program)), Filter: &program[0]}
	if err := unix.Prctl(unix.PR_SET_SECCOMP, unix.SECCOMP_MODE_FILTER, uintptr(unsafe.Pointer(&filter)), 0, 0); err != nil {
		return err
	}
	return fmt.Errorf("%s: %w", command[0], unix.Exec(command[0], command, os.Environ()))
}

// unitFamilies are the address families that hack/migd.service leaves migd.
func unitFamilies(t *testing.T, root string) string {
	t.Helper()
	numbers := map[string]int{"AF_UNIX": unix.AF_UNIX, "AF_INET": unix.AF_INET, "AF_INET6": unix.AF_INET6, "AF_NETLINK": unix.AF_NETLINK, "AF_PACKET": unix.AF_PACKET}
	unit, err := os.Open(filepath.Join(root, "hack", "migd.service"))
	if err != nil {
		t.Fatal(err)
	}
	defer unit.Close()
	var found []string
	for lines := bufio.NewScanner(unit); lines.Scan(); {
		names, ok := strings.CutPrefix(lines.Text(), "RestrictAddressFamilies=")
		if !ok {
			continue
		}
		for name := range strings.FieldsSeq(names) {
			if numbers[name] == 0 {
				t.Fatalf("this test does not know %s", name)
			}
			found = append(found, strconv.Itoa(numbers[name]))
		}
	}
	if found == nil {
		t.Fatal("the unit restricts no address families: this test is of no use any more")
	}
	return strings.Join(found, ",")
}

// TestUnitOfTheDaemon: a migd that may do what its systemd unit leaves it takes in a
// container with a network.
func TestUnitOfTheDaemon(t *testing.T) {
	w := newWorld(t, daemon.V24, image.Redis)
	if err := w.beta.migd.stop(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	w.beta.under = []string{self, "internal", restrict, unitFamilies(t, w.beta.d.Tree.Root())}
	w.beta.migd = w.startMigd(w.beta)
	w.bridged()
	const id, ip = "served", "10.77.0.57"
	w.serve(w.alpha, id)
	w.wire(w.alpha, id, ip)
	w.reached(ip)
	w.answers(ip, "SET", "key", "value")
	w.mustMove(w.alpha, id, w.beta.IP)
	if got := w.answers(ip, "GET", "key"); got != "value" {
		t.Errorf("it says %q", got)
	}
	w.one(id, w.beta, w.alpha)
}
