// SPDX-License-Identifier: Apache-2.0

package cri

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	v1 "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// pod is a sandbox and what it was made from.
type pod struct {
	*node
	id     string
	config *v1.PodSandboxConfig
}

// runPod makes a pod as the kubelet does. change may be nil.
func (n *node) runPod(handler, name string, change func(*v1.PodSandboxConfig)) *pod {
	n.t.Helper()
	logs := filepath.Join(n.logs, handler, name)
	if err := os.MkdirAll(logs, 0o755); err != nil {
		n.t.Fatal(err)
	}
	config := &v1.PodSandboxConfig{
		Metadata:     &v1.PodSandboxMetadata{Name: name, Uid: handler + "-" + name, Namespace: "default"},
		Hostname:     name,
		LogDirectory: logs,
		DnsConfig:    &v1.DNSConfig{Servers: []string{"10.77.0.1"}, Searches: []string{"default.svc.cluster.local"}, Options: []string{"ndots:5"}},
		Labels:       map[string]string{"app": name},
		Annotations:  map[string]string{"io.mig/tcp": "keep"},
		Linux: &v1.LinuxPodSandboxConfig{
			CgroupParent: n.cgroup + "/" + handler + "-" + name,
			SecurityContext: &v1.LinuxSandboxSecurityContext{
				NamespaceOptions: &v1.NamespaceOption{Pid: v1.NamespaceMode_CONTAINER},
				Seccomp:          &v1.SecurityProfile{ProfileType: v1.SecurityProfile_RuntimeDefault},
			},
			Sysctls: map[string]string{"net.ipv4.ip_unprivileged_port_start": "1000"},
		},
	}
	if change != nil {
		change(config)
	}
	r, err := n.RunPodSandbox(n.ctx(), &v1.RunPodSandboxRequest{Config: config, RuntimeHandler: handler})
	if err != nil {
		n.t.Fatalf("RunPodSandbox %s under %s: %v", name, handler, err)
	}
	return &pod{n, r.PodSandboxId, config}
}

// ip is the pod's address.
func (p *pod) ip() string {
	p.t.Helper()
	r, err := p.PodSandboxStatus(p.ctx(), &v1.PodSandboxStatusRequest{PodSandboxId: p.id})
	if err != nil {
		p.t.Fatal(err)
	}
	return r.Status.Network.GetIp()
}

// end removes a pod with its containers.
func (p *pod) end() {
	p.t.Helper()
	if _, err := p.StopPodSandbox(p.ctx(), &v1.StopPodSandboxRequest{PodSandboxId: p.id}); err != nil {
		p.t.Errorf("StopPodSandbox: %v", err)
	}
	if _, err := p.RemovePodSandbox(p.ctx(), &v1.RemovePodSandboxRequest{PodSandboxId: p.id}); err != nil {
		p.t.Errorf("RemovePodSandbox: %v", err)
	}
}

// box is a container of a pod.
type box struct {
	*pod
	id, log string
}

// create makes a container that runs a shell script. change may be nil.
func (p *pod) create(name, script string, change func(*v1.ContainerConfig)) *box {
	p.t.Helper()
	config := &v1.ContainerConfig{
		Metadata:    &v1.ContainerMetadata{Name: name},
		Image:       &v1.ImageSpec{Image: "mig.test/busybox:1"},
		Command:     []string{"/bin/sh", "-c", script},
		WorkingDir:  "/tmp",
		Envs:        []*v1.KeyValue{{Key: "GREETING", Value: []byte("hello")}},
		Labels:      map[string]string{"container": name},
		Annotations: map[string]string{"io.mig/exec": "refuse"},
		LogPath:     name + ".log",
		Linux: &v1.LinuxContainerConfig{
			Resources: &v1.LinuxContainerResources{MemoryLimitInBytes: 64 << 20, CpuShares: 512},
			SecurityContext: &v1.LinuxContainerSecurityContext{
				NamespaceOptions: p.config.Linux.SecurityContext.NamespaceOptions,
				Seccomp:          &v1.SecurityProfile{ProfileType: v1.SecurityProfile_RuntimeDefault},
				NoNewPrivs:       true,
				MaskedPaths:      []string{"/proc/kcore", "/proc/timer_list"},
				ReadonlyPaths:    []string{"/proc/sys", "/proc/irq"},
			},
		},
	}
	if change != nil {
		change(config)
	}
	r, err := p.CreateContainer(p.ctx(), &v1.CreateContainerRequest{PodSandboxId: p.id, Config: config, SandboxConfig: p.config})
	if err != nil {
		p.t.Fatalf("CreateContainer %s: %v", name, err)
	}
	return &box{p, r.ContainerId, filepath.Join(p.config.LogDirectory, config.LogPath)}
}

// run creates and starts a container.
func (p *pod) run(name, script string, change func(*v1.ContainerConfig)) *box {
	p.t.Helper()
	b := p.create(name, script, change)
	if _, err := b.StartContainer(b.ctx(), &v1.StartContainerRequest{ContainerId: b.id}); err != nil {
		b.t.Fatalf("StartContainer %s: %v", name, err)
	}
	return b
}

// status is the container's, as the kubelet reads it.
func (b *box) status() *v1.ContainerStatus {
	b.t.Helper()
	r, err := b.ContainerStatus(b.ctx(), &v1.ContainerStatusRequest{ContainerId: b.id})
	if err != nil {
		b.t.Fatal(err)
	}
	return r.Status
}

// ended waits for the container's end and says how it was.
func (b *box) ended() string {
	b.t.Helper()
	var s *v1.ContainerStatus
	b.await("the container ends", func() (bool, any) {
		s = b.status()
		return s.State == v1.ContainerState_CONTAINER_EXITED, s.State
	})
	return fmt.Sprintf("%s: %d %s", s.State, s.ExitCode, s.Reason)
}

// exec runs a command in the container and shows what became of it.
func (b *box) exec(script string) string {
	r, err := b.ExecSync(b.ctx(), &v1.ExecSyncRequest{ContainerId: b.id, Cmd: []string{"/bin/sh", "-c", script}, Timeout: int64(patience / time.Second)})
	if err != nil {
		return err.Error()
	}
	return fmt.Sprintf("%d out:%q err:%q", r.ExitCode, r.Stdout, r.Stderr)
}

// says waits for a line in the container's log, which CRI has marked with its stream.
func (b *box) says(stream, line string) {
	b.t.Helper()
	b.await(fmt.Sprintf("%q in %s", line, b.log), func() (bool, any) {
		text, err := os.ReadFile(b.log)
		if err != nil {
			return false, err
		}
		return strings.Contains(string(text), " "+stream+" F "+line+"\n"), string(text)
	})
}

// remove stops a container, with a second for it to end by itself, and removes it.
func (b *box) remove() {
	b.t.Helper()
	if _, err := b.StopContainer(b.ctx(), &v1.StopContainerRequest{ContainerId: b.id, Timeout: 1}); err != nil {
		b.t.Errorf("StopContainer: %v", err)
	}
	if _, err := b.RemoveContainer(b.ctx(), &v1.RemoveContainerRequest{ContainerId: b.id}); err != nil {
		b.t.Errorf("RemoveContainer: %v", err)
	}
}
