// SPDX-License-Identifier: Apache-2.0

package cri

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
	v1 "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/io-mig/mig/integration/internal/daemon"
	"github.com/io-mig/mig/integration/internal/image"
	"github.com/io-mig/mig/integration/internal/itest"
)

// diary is what a kubelet would have seen, one line for each look.
type diary []string

func (d *diary) note(what string, saw any) { *d = append(*d, fmt.Sprintf("%s: %v", what, saw)) }

// TestPods: a kubelet sees the same of pods under io.mig.v1 as of pods under runc.
func TestPods(t *testing.T) {
	itest.EachVersion(t, func(t *testing.T, version daemon.Version) {
		n := newNode(t, version, image.Busybox)
		for _, story := range []struct {
			name string
			tell func(*node, string, *diary)
		}{
			{"life", (*node).life}, {"two containers", (*node).neighbours}, {"shared pids", (*node).sharedPids},
			{"deaths", (*node).deaths}, {"restart of containerd", (*node).restart}, {"host network", (*node).hostNetwork},
		} {
			t.Run(story.name, func(t *testing.T) {
				var saw [2]diary
				for i, handler := range handlers {
					inner := *n
					inner.t = t
					story.tell(&inner, handler, &saw[i])
				}
				if diff := cmp.Diff(saw[0], saw[1]); diff != "" {
					t.Errorf("%s (-) and %s (+) differ:\n%s", handlers[0], handlers[1], diff)
				}
				t.Log(strings.Join(saw[1], "\n"))
			})
		}
		n.nothingIsLeft()
	})
}

// nothingIsLeft: no pod, and of the network no lease.
func (n *node) nothingIsLeft() {
	n.t.Helper()
	pods, err := n.ListPodSandbox(n.ctx(), &v1.ListPodSandboxRequest{})
	if err != nil || len(pods.Items) > 0 {
		n.t.Errorf("%v, pods %v", err, pods)
	}
	if mounts := n.host.Mounts(n.d.Dir + "/state"); len(mounts) > 0 {
		n.t.Errorf("mounts: %v", mounts)
	}
}

// life is a container from its start to its removal.
func (n *node) life(handler string, d *diary) {
	p := n.runPod(handler, "life", nil)
	defer p.end()
	status, err := p.PodSandboxStatus(p.ctx(), &v1.PodSandboxStatusRequest{PodSandboxId: p.id})
	if err != nil {
		n.t.Fatal(err)
	}
	if status.Status.RuntimeHandler != handler {
		n.t.Errorf("it runs under %q", status.Status.RuntimeHandler)
	}
	d.note("state of the pod", status.Status.State)
	d.note("it has an address", strings.HasPrefix(p.ip(), "10.77.0."))

	b := p.create("main", `echo out; echo err >&2; trap "echo bye; exit 7" TERM; while :; do sleep 0.1; done`, nil)
	d.note("created", b.status().State)
	if _, err := b.StartContainer(b.ctx(), &v1.StartContainerRequest{ContainerId: b.id}); err != nil {
		n.t.Fatal(err)
	}
	b.says("stdout", "out")
	b.says("stderr", "err")
	s := b.status()
	d.note("started", fmt.Sprint(s.State, s.StartedAt > 0, s.FinishedAt, s.Image.Image, s.Labels, s.Annotations))
	for _, script := range []string{
		"exit 3", "echo to both; echo of them >&2", "hostname; pwd; id; echo $GREETING", "cat /etc/resolv.conf",
		"grep -E '^(Cap|Seccomp:|NoNewPrivs)' /proc/self/status", "ulimit -a", "umask", "echo x >/proc/sys/kernel/hostname; wc -c </proc/kcore",
		"tr '\\0' ' ' </proc/1/cmdline", "cat /proc/sys/net/ipv4/ip_unprivileged_port_start", "cut -d' ' -f1-2 /proc/1/stat", "no-such-program",
		"cat /proc/1/oom_score_adj", "mount | cut -d' ' -f3,5 | grep -v sys/fs/cgroup/", "ls /dev /dev/pts", "ip -o addr show lo | grep -c UP; ip link | grep -c eth0", "kill -9 $$",
	} {
		d.note(script, b.exec(script))
	}
	_, err = b.ExecSync(b.ctx(), &v1.ExecSyncRequest{ContainerId: b.id, Cmd: []string{"sleep", "100"}, Timeout: 1})
	d.note("an exec that takes too long fails", err != nil)
	d.note("statistics", p.statistics(b))
	_, err = b.UpdateContainerResources(b.ctx(), &v1.UpdateContainerResourcesRequest{ContainerId: b.id, Linux: &v1.LinuxContainerResources{CpuShares: 256, MemoryLimitInBytes: 128 << 20}})
	d.note("new limits", fmt.Sprint(err, p.limits()))
	if err := os.Rename(b.log, b.log+".1"); err != nil {
		n.t.Fatal(err)
	}
	_, err = b.ReopenContainerLog(b.ctx(), &v1.ReopenContainerLogRequest{ContainerId: b.id})
	d.note("the log begins anew", err)
	if _, err := b.StopContainer(b.ctx(), &v1.StopContainerRequest{ContainerId: b.id, Timeout: 30}); err != nil {
		n.t.Error(err)
	}
	b.says("stdout", "bye")
	d.note("stopped", b.ended())
	d.note("exec in what has ended fails", strings.Contains(b.exec("true"), "CONTAINER_EXITED"))
	b.remove()
	again := p.run("main", "sleep 1000", func(c *v1.ContainerConfig) { c.Metadata.Attempt = 1 })
	d.note("once more", again.status().State)
}

// statistics says which numbers of a container and its pod are there.
func (p *pod) statistics(b *box) string {
	var seen []string
	r, err := p.ContainerStats(p.ctx(), &v1.ContainerStatsRequest{ContainerId: b.id})
	if err != nil {
		return err.Error()
	}
	s := r.Stats
	seen = append(seen, fmt.Sprint(s.Attributes.Metadata.Name, s.Cpu.GetUsageCoreNanoSeconds().GetValue() > 0, s.Memory.GetWorkingSetBytes().GetValue() > 0, s.Memory.GetUsageBytes().GetValue() > 0))
	all, err := p.ListContainerStats(p.ctx(), &v1.ListContainerStatsRequest{Filter: &v1.ContainerStatsFilter{PodSandboxId: p.id}})
	seen = append(seen, fmt.Sprint(len(all.GetStats()), err))
	whole, err := p.PodSandboxStats(p.ctx(), &v1.PodSandboxStatsRequest{PodSandboxId: p.id})
	if err != nil {
		return strings.Join(append(seen, err.Error()), ", ")
	}
	l := whole.Stats.Linux
	seen = append(seen, fmt.Sprint(l.Cpu.GetUsageCoreNanoSeconds().GetValue() > 0, l.Memory.GetWorkingSetBytes().GetValue() > 0, l.Network.GetDefaultInterface().GetName(), l.Process.GetProcessCount().GetValue(), len(l.Containers)))
	return strings.Join(seen, ", ")
}

// limits are those of the pod's cgroups, as the kernel has them.
func (p *pod) limits() string {
	var seen []string
	for _, name := range []string{"memory/*.limit_in_bytes", "cpu*/cpu.shares"} {
		controller, file, _ := strings.Cut(name, "/")
		script := fmt.Sprintf("for f in /sys/fs/cgroup/%s%s/*/%s; do echo $(basename $f) $(cat $f); done | sort", controller, p.config.Linux.CgroupParent, strings.Replace(file, "*", "memory", 1))
		out, err := p.host.Command(p.ctx(), "sh", "-c", script).CombinedOutput()
		seen = append(seen, fmt.Sprintf("%s%v", out, err))
	}
	return strings.Join(seen, "")
}

// neighbours are two containers of a pod: one network, one shim.
func (n *node) neighbours(handler string, d *diary) {
	p := n.runPod(handler, "two", nil)
	defer p.end()
	server := p.run("server", "mkdir /tmp/www; echo served >/tmp/www/index.html; exec httpd -f -p 8080 -h /tmp/www", nil)
	c := p.run("client", "exec sleep 1000", nil)
	n.await("the server listens", func() (bool, any) {
		out := c.exec("wget -q -O - http://127.0.0.1:8080/")
		return strings.HasPrefix(out, "0 "), out
	})
	d.note("by loopback", c.exec("wget -q -O - http://127.0.0.1:8080/"))
	d.note("by the pod's address", c.exec("wget -q -O - http://"+p.ip()+":8080/"))
	out, err := n.host.Command(n.ctx(), "busybox", "wget", "-q", "-O", "-", "http://"+p.ip()+":8080/").CombinedOutput()
	d.note("from the node", fmt.Sprintf("%s %v", out, err))
	d.note("processes of the client", c.exec("ps -o comm | grep -c httpd; hostname"))
	d.note("shims of the pod", n.shims(p.id, server.id, c.id))
	list, err := n.ListContainers(n.ctx(), &v1.ListContainersRequest{Filter: &v1.ContainerFilter{PodSandboxId: p.id, State: &v1.ContainerStateValue{State: v1.ContainerState_CONTAINER_RUNNING}}})
	d.note("running containers", fmt.Sprint(len(list.GetContainers()), err))
}

// shims counts those that were started for a pod or for one of its containers. That
// of a pod before it may still be ending.
func (n *node) shims(ids ...string) (count int) {
	for _, p := range n.d.Processes() {
		if what := p.String(); strings.Contains(what, "containerd-shim-") &&
			slices.ContainsFunc(ids, func(id string) bool { return strings.Contains(what, " -id "+id) }) {
			count++
		}
	}
	return count
}

// sharedPids: the containers of a pod see each other's processes.
func (n *node) sharedPids(handler string, d *diary) {
	p := n.runPod(handler, "pids", func(c *v1.PodSandboxConfig) {
		c.Linux.SecurityContext.NamespaceOptions = &v1.NamespaceOption{Pid: v1.NamespaceMode_POD}
	})
	defer p.end()
	first := p.run("first", "exec sleep 1001", nil)
	second := p.run("second", "exec sleep 1002", nil)
	d.note("processes", second.exec("ps -o args | grep '^sleep' | sort"))
	d.note("a signal across", second.exec("kill -9 $(ps -o pid,args | grep '[1]001' | awk '{print $1}')"))
	d.note("the first has ended", first.ended())
	d.note("the second has not", second.status().State)
}

// deaths are ends that nobody has asked for.
func (n *node) deaths(handler string, d *diary) {
	p := n.runPod(handler, "deaths", nil)
	defer p.end()
	for _, script := range []string{"exit 0", "exit 5", `sh -c 'kill -SEGV $$'; exit $?`} {
		d.note(script, p.run(fmt.Sprint("ends", len(*d)), script, nil).ended())
	}
	big := p.run("big", "exec tail /dev/zero", func(c *v1.ContainerConfig) { c.Linux.Resources.MemoryLimitInBytes = 16 << 20 })
	d.note("too much memory", big.ended())
	_, err := p.StartContainer(p.ctx(), &v1.StartContainerRequest{ContainerId: p.create("absent", "", func(c *v1.ContainerConfig) { c.Command = []string{"/no/such/program"} }).id})
	d.note("a program that is not there", strings.Contains(fmt.Sprint(err), "no such file or directory"))
	stubborn := p.run("stubborn", `trap "" TERM; echo ready; while :; do sleep 0.1; done`, nil)
	stubborn.says("stdout", "ready")
	if _, err := stubborn.StopContainer(p.ctx(), &v1.StopContainerRequest{ContainerId: stubborn.id, Timeout: 1}); err != nil {
		n.t.Error(err)
	}
	d.note("who does not listen", stubborn.ended())
}

// restart: a containerd that comes back finds pods and containers, and what ended
// meanwhile.
func (n *node) restart(handler string, d *diary) {
	p := n.runPod(handler, "restart", nil)
	defer p.end()
	b := p.run("stays", `i=0; while :; do i=$((i+1)); echo $i >/tmp/next; mv /tmp/next /tmp/n; sleep 0.05; done`, nil)
	short := p.run("ends", "read x </tmp/go; exit 9", func(c *v1.ContainerConfig) {
		dir := filepath.Join(n.logs, handler)
		if err := syscall.Mkfifo(filepath.Join(dir, "go"), 0o600); err != nil {
			n.t.Fatal(err)
		}
		c.Mounts = []*v1.Mount{{HostPath: filepath.Join(dir, "go"), ContainerPath: "/tmp/go"}}
	})
	if err := n.d.Stop(syscall.SIGKILL); err != nil {
		n.t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(n.logs, handler, "go"), []byte("x\n"), 0); err != nil {
		n.t.Fatal(err)
	}
	if err := n.d.Restart(n.ctx(), syscall.SIGKILL); err != nil {
		n.t.Fatal(err)
	}
	n.connect()
	d.note("ended meanwhile", short.ended())
	d.note("runs on", b.status().State)
	d.note("counts on", b.exec("a=$(cat /tmp/n); sleep 0.5; b=$(cat /tmp/n); [ $b -gt $a ]"))
	b.remove()
}

// hostNetwork is a pod in the node's network.
func (n *node) hostNetwork(handler string, d *diary) {
	p := n.runPod(handler, "host", func(c *v1.PodSandboxConfig) {
		c.Linux.SecurityContext.NamespaceOptions = &v1.NamespaceOption{Network: v1.NamespaceMode_NODE, Pid: v1.NamespaceMode_CONTAINER}
		c.Hostname, c.Linux.Sysctls = "", nil
	})
	defer p.end()
	b := p.run("main", "exec sleep 1000", nil)
	d.note("its interfaces", b.exec("ip -o link | cut -d: -f2 | grep -v veth"))
	d.note("its name", b.exec("hostname"))
}
