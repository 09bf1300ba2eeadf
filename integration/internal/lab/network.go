// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"context"
	"fmt"
	"net"
	"os/exec"
	"runtime"
	"time"

	"golang.org/x/sys/unix"
)

// InNetwork calls f in the host's network. A socket stays in the network that it was
// made in, whoever uses it.
func (h *Host) InNetwork(f func() error) error {
	// The thread comes back and goes on: the lab's processes end with the thread that
	// started them.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	back, err := unix.Open("/proc/thread-self/ns/net", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(back)
	there, err := unix.Open(fmt.Sprintf("/proc/%d/ns/net", h.Pid()), unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(there)
	if err := unix.Setns(there, unix.CLONE_NEWNET); err != nil {
		return fmt.Errorf("enter the network of %s: %w", h.Name, err)
	}
	defer func() {
		if e := unix.Setns(back, unix.CLONE_NEWNET); e != nil {
			panic(e)
		}
	}()
	return f()
}

// dialTimeout bounds one attempt to connect.
const dialTimeout = 10 * time.Second

// Dial connects from the host to an address without names, by TCP, UDP or IP.
func (h *Host) Dial(ctx context.Context, network, address string) (c net.Conn, err error) {
	err = h.InNetwork(func() error {
		d := net.Dialer{Timeout: dialTimeout}
		c, err = d.DialContext(ctx, network, address)
		return err
	})
	return c, err
}

// Wire puts the network namespace of a process on the host's bridge (see Bridge), as a
// person does with ip(8): with an interface eth0 that has an address of the lab's
// network, and a port by this name on the host.
func (h *Host) Wire(pid int, port, ip string) error {
	err := h.run(fmt.Sprintf("ip link add %s type veth peer name eth0 netns %d && ip link set %[1]s master br0 up", port, pid))
	if err != nil {
		return err
	}
	script := fmt.Sprintf("ip addr add %s/24 brd + dev eth0; ip link set eth0 up; ip route add default via 10.77.0.1", ip)
	out, err := exec.Command("nsenter", fmt.Sprintf("--target=%d", pid), "--net", "sh", "-ec", script).CombinedOutput()
	if err != nil {
		return fmt.Errorf("in the network of process %d on %s: %s: %w: %s", pid, h.Name, script, err, out)
	}
	return nil
}
