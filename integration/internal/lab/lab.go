// SPDX-License-Identifier: Apache-2.0

// Package lab makes hosts for tests out of namespaces: each has a network, a
// mount, a UTS and a cgroup namespace of its own, so that containerd, migd and
// containers of the same name do not meet, and an address on a bridge that joins
// them. Processes are numbered as on the machine, so that leaks are found from
// outside.
//
//	         bridge (a network namespace of its own)
//	10.77.0.1/24 ─┬──────────────┬──────────────┐
//	           alpha           beta          client
//	          10.77.0.11     10.77.0.12     10.77.0.13
//
// A host's /run and /sys/fs/cgroup are its own; /tmp and the programs are the
// machine's.
package lab

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/io-mig/mig/integration/internal/scope"
)

// Lab is some hosts and the bridge that joins them.
type Lab struct {
	// Name is unique, fit for a containerd namespace that all hosts share.
	Name  string
	Hosts []*Host

	scope  scope.Scope
	bridge *Host
}

// Host is one set of namespaces. A process keeps them.
type Host struct {
	Name, IP string
	lab      *Lab
	keeper   *exec.Cmd
	clock    *exec.Cmd // keeps its time namespace; nil: it has the machine's clocks
}

// New makes hosts with these names. The caller must Close the lab.
func New(names ...string) (*Lab, error) {
	s, err := scope.New()
	if err != nil {
		return nil, err
	}
	l := &Lab{Name: s.Name, scope: s}
	if l.bridge, err = l.host("bridge", ""); err == nil {
		err = l.bridge.run("ip link add br0 type bridge && ip addr add 10.77.0.1/24 dev br0 && ip link set br0 up")
	}
	for i, name := range names {
		if err != nil {
			break
		}
		var h *Host
		if h, err = l.host(name, fmt.Sprintf("10.77.0.%d", 11+i)); err == nil {
			l.Hosts = append(l.Hosts, h)
			err = l.join(h)
		}
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("make hosts: %w", err), l.Close())
	}
	return l, nil
}

// join gives a host its address on the bridge.
func (l *Lab) join(h *Host) error {
	port := "to-" + h.Name
	return errors.Join(
		l.bridge.run(fmt.Sprintf("ip link add %s type veth peer name eth0 netns %d && ip link set %s master br0 up", port, h.Pid(), port)),
		h.run(fmt.Sprintf("ip addr add %s/24 dev eth0 && ip link set eth0 up && ip route add default via 10.77.0.1", h.IP)),
	)
}

// enterCgroups puts a shell into cgroups of the host's own and leaves it there:
// they are the roots of the cgroup namespace that follows. A cpuset of version 1
// takes nobody in as long as it is empty (cgroup-v1/cpusets.rst).
const enterCgroups = `set -e
for m in /sys/fs/cgroup/*/ /sys/fs/cgroup/; do
  [ -e "$m/cgroup.procs" ] || continue
  for d in "$m$LAB" "$m$LAB/$HOST"; do
    mkdir -p "$d"
    if [ -e "$m/cpuset.effective_cpus" ] && [ -e "$d/cpuset.cpus" ]; then
      cat "$(dirname "$d")/cpuset.cpus" >"$d/cpuset.cpus"
      cat "$(dirname "$d")/cpuset.mems" >"$d/cpuset.mems"
    fi
  done
  echo $$ >"$m$LAB/$HOST/cgroup.procs"
done
exec unshare --net --mount --uts --cgroup sh -c "$SETUP"
`

// setup runs in the new namespaces: cgroup hierarchies are mounted again, since
// a mount shows the root of the namespace that it was made in.
const setup = `set -e
mount --make-rprivate /
hostname "$HOST"
mounts=$(cat /proc/mounts) # a file that changes under a loop never ends
echo "$mounts" | while read -r src dir type opts rest; do
  case "$type:$dir" in cgroup*:/sys/fs/cgroup*) ;; *) continue ;; esac
  umount "$dir"
  o=${opts#rw,}; o=${o#relatime}; o=${o#,}
  if [ "$type" = cgroup ]; then mount -t cgroup -o "$o" cgroup "$dir"; else mount -t cgroup2 cgroup2 "$dir"; fi
done
mount -t tmpfs -o mode=755 tmpfs /run
ip link set lo up
echo ready
exec sleep infinity
`

// host makes the namespaces.
func (l *Lab) host(name, ip string) (*Host, error) {
	h := &Host{Name: name, IP: ip, lab: l}
	h.keeper = exec.Command("sh", "-c", enterCgroups)
	h.keeper.Env = append(os.Environ(), "LAB="+l.Name, "HOST="+name, "SETUP="+setup, l.scope.Mark())
	h.keeper.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	h.keeper.Stderr = os.Stderr
	out, err := h.keeper.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := h.keeper.Start(); err != nil {
		return nil, err
	}
	if line, err := bufio.NewReader(out).ReadString('\n'); err != nil || line != "ready\n" {
		_ = h.keeper.Process.Kill()
		return nil, fmt.Errorf("host %s: %q: %w", name, line, errors.Join(err, h.keeper.Wait()))
	}
	return h, nil
}

// Cables has the bridge that joins the hosts, whose ports are called to-NAME by the
// hosts' names.
func (l *Lab) Cables() *Host { return l.bridge }

// Pid of the process that keeps the host's namespaces.
func (h *Host) Pid() int { return h.keeper.Process.Pid }

// Enter is a command that runs its arguments on the host.
func (h *Host) Enter() []string {
	args := []string{"nsenter", fmt.Sprintf("--target=%d", h.Pid()), "--net", "--mount", "--uts", "--cgroup"}
	if h.clock != nil {
		args = append(args, fmt.Sprintf("--time=/proc/%d/ns/time_for_children", h.clock.Process.Pid))
	}
	return append(args, "--")
}

// StartedBefore has what is run on the host from now on see its clocks
// (CLOCK_MONOTONIC, CLOCK_BOOTTIME) ahead of the machine's, as those of a host that
// was started so much earlier (time_namespaces(7)).
func (h *Host) StartedBefore(ahead time.Duration) error {
	seconds := fmt.Sprint(int(ahead.Seconds()))
	cmd := h.Command(context.Background(), "unshare", "--time", "--monotonic", seconds, "--boottime", seconds, "--fork", "--kill-child", "sh", "-c", "echo ready; exec sleep infinity")
	cmd.SysProcAttr.Pdeathsig = syscall.SIGKILL
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	h.clock = cmd
	if line, err := bufio.NewReader(out).ReadString('\n'); err != nil || line != "ready\n" {
		return fmt.Errorf("time namespace of host %s: %q: %w", h.Name, line, err)
	}
	return nil
}

// afterwards is how long the output of a program that was ended is waited for:
// something else may have it open.
const afterwards = 5 * time.Second

// Command prepares a program on the host, in a process group of its own, which ends
// with ctx. It ends with the lab.
func (h *Host) Command(ctx context.Context, name string, args ...string) *exec.Cmd {
	full := append(append(h.Enter(), name), args...)
	cmd := exec.CommandContext(ctx, full[0], full[1:]...)
	cmd.Env = append(os.Environ(), h.lab.scope.Mark())
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error {
		if err := syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL); !errors.Is(err, syscall.ESRCH) {
			return err
		}
		return os.ErrProcessDone
	}
	cmd.WaitDelay = afterwards
	return cmd
}

func (h *Host) run(script string) error {
	cmd := h.Command(context.Background(), "sh", "-c", script)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %s: %w: %s", h.Name, script, err, out)
	}
	return nil
}

// Run runs a shell script on the host.
func (h *Host) Run(script string) error { return h.run(script) }

// Bridge puts the host's cable into a bridge br0 of its own, as hosts of
// containers have it: their interfaces can be ports of it, and are on the network
// that joins the hosts. Where it is one it stays so.
func (h *Host) Bridge() error {
	// A bridge that nobody gave an address takes the lowest of its ports', another one
	// with each container: its neighbours would not know it any more.
	return h.run(fmt.Sprintf("if test -e /proc/sys/net/ipv4/conf/br0; then exit; fi; ip link add br0 address $(ip -o link show eth0 | sed 's/.*ether \\([^ ]*\\).*/\\1/') type bridge && ip addr flush dev eth0 && ip link set eth0 master br0 && "+
		"ip addr add %s/24 dev br0 && ip link set br0 up && ip route add default via 10.77.0.1", h.IP))
}

// Path is a file of the host as the test sees it.
func (h *Host) Path(file string) string {
	return filepath.Join(fmt.Sprintf("/proc/%d/root", h.Pid()), file)
}

// Disconnect takes the host's cable out; Connect puts it in again.
func (h *Host) Disconnect() error { return h.lab.bridge.run("ip link set to-" + h.Name + " down") }

// Connect undoes Disconnect.
func (h *Host) Connect() error { return h.lab.bridge.run("ip link set to-" + h.Name + " up") }

// Mounts lists the host's mounts below a directory (proc_pid_mountinfo(5)).
func (h *Host) Mounts(below string) []string {
	info, err := os.ReadFile(fmt.Sprintf("/proc/%d/mountinfo", h.Pid()))
	if err != nil {
		return []string{err.Error()}
	}
	var found []string
	for line := range strings.Lines(string(info)) {
		if f := strings.Fields(line); len(f) > 4 && strings.HasPrefix(f[4], below) {
			found = append(found, f[4])
		}
	}
	return found
}

// Cgroups lists the cgroups of containers on the host: those below the lab's
// containerd namespace.
func (h *Host) Cgroups() []string {
	var found []string
	_ = filepath.WalkDir("/sys/fs/cgroup", func(path string, entry fs.DirEntry, err error) error {
		// Directories vanish while others work: that is not our business.
		if err == nil && entry.IsDir() && strings.Contains(path, filepath.Join(h.lab.Name, h.Name, h.lab.Name)+"/") {
			found = append(found, path)
		}
		return nil
	})
	return found
}

// Close ends everything that runs on the hosts, and the hosts.
func (l *Lab) Close() error {
	for _, h := range append(l.Hosts, l.bridge) {
		if h == nil {
			continue
		}
		for _, keeper := range []*exec.Cmd{h.keeper, h.clock} {
			if keeper != nil {
				_ = keeper.Process.Kill()
				_ = keeper.Wait()
			}
		}
	}
	return l.scope.Destroy()
}
