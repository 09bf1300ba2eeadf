// SPDX-License-Identifier: Apache-2.0

package host

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"github.com/containerd/cgroups/v3"
	cgroup1 "github.com/containerd/cgroups/v3/cgroup1/stats"
	cgroup2 "github.com/containerd/cgroups/v3/cgroup2/stats"
	"github.com/containerd/containerd/api/services/tasks/v1"
	"github.com/containerd/containerd/api/types"
	"github.com/containerd/containerd/api/types/task"
	"github.com/containerd/containerd/v2/core/containers"
	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/errdefs"
	"github.com/containerd/errdefs/pkg/errgrpc"
	"github.com/containerd/typeurl/v2"
	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/io-mig/mig/layers/request/peer"
)

// Runtime is the name of the runtime whose containers can be moved.
const Runtime = "io.mig.v1"

// sandboxAnnotation names the pod that a container of CRI belongs to.
const sandboxAnnotation = "io.kubernetes.cri.sandbox-id"

// Source is a running container as a move's source sees it.
type Source struct {
	Namespace string
	Container peer.Container
	// Pid of its first process.
	Pid int
	// Paused by a person.
	Paused bool
	// Memory that it occupies, in bytes, without the page cache.
	Memory uint64
	Spec   *specs.Spec
}

// Read describes a container that is to be moved. The error names everything
// that containerd knows of it and no move can carry.
func (h *Host) Read(ctx context.Context, namespace, id string) (*Source, error) {
	ctx = in(ctx, namespace)
	r, err := h.record(ctx, namespace, id)
	if err != nil {
		return nil, err
	}
	s := &Source{Namespace: namespace, Container: peer.Container{
		ID: r.ID, Labels: without(r.Labels, LabelIncoming),
		Runtime: peer.Runtime{Name: r.Runtime.Name, Options: anyOf(r.Runtime.Options)},
	}}
	releaseRestart(s.Container.Labels) // which a move has held whose mig died
	errs := []error{s.readSpec(&r), movable(&r, s.Spec)}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	for name, e := range r.Extensions {
		if s.Container.Extensions == nil {
			s.Container.Extensions = map[string]peer.Any{}
		}
		s.Container.Extensions[name] = *anyOf(e)
	}
	errs = []error{h.readTask(ctx, s), h.readSnapshot(ctx, s, &r), h.readImage(ctx, s, &r)}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	return s, nil
}

// record is what containerd keeps of a container.
func (h *Host) record(ctx context.Context, namespace, id string) (r containers.Container, err error) {
	r, err = h.client.ContainerService().Get(ctx, id)
	if errdefs.IsNotFound(err) {
		return r, fmt.Errorf("there is no container %s in the namespace %s (-n names another)", id, namespace)
	}
	if err != nil {
		return r, fmt.Errorf("container %s: %w", id, err)
	}
	return r, nil
}

// Task describes a running container of ours as far as Shim needs it.
func (h *Host) Task(ctx context.Context, namespace, id string) (*Source, error) {
	ctx = in(ctx, namespace)
	r, err := h.record(ctx, namespace, id)
	if err != nil {
		return nil, err
	}
	if r.Runtime.Name != Runtime {
		return nil, fmt.Errorf("container %s: its runtime is %s, only containers of %s can be saved so", id, r.Runtime.Name, Runtime)
	}
	s := &Source{Namespace: namespace, Container: peer.Container{ID: id}}
	return s, h.readTask(ctx, s)
}

// Running lists the containers of mig's runtime whose task runs or is paused.
func (h *Host) Running(ctx context.Context, namespace string) ([]string, error) {
	ids, _, err := h.running(ctx, namespace)
	return ids, err
}

// Others lists those of other runtimes, which cannot be moved.
func (h *Host) Others(ctx context.Context, namespace string) ([]string, error) {
	_, ids, err := h.running(ctx, namespace)
	return ids, err
}

// running lists the containers whose task runs or is paused, ours and those of other
// runtimes.
func (h *Host) running(ctx context.Context, namespace string) (ours, others []string, err error) {
	ctx = in(ctx, namespace)
	records, err := h.client.ContainerService().List(ctx)
	if err != nil {
		return nil, nil, fmt.Errorf("containers of the namespace %s: %w", namespace, err)
	}
	r, err := h.client.TaskService().List(ctx, &tasks.ListTasksRequest{})
	if err != nil {
		return nil, nil, fmt.Errorf("tasks of the namespace %s: %w", namespace, errgrpc.ToNative(err))
	}
	running := map[string]bool{}
	for _, p := range r.Tasks {
		running[p.ID] = p.Status == task.Status_RUNNING || p.Status == task.Status_PAUSED
	}
	for _, c := range records {
		switch {
		case !running[c.ID]:
		case c.Runtime.Name == Runtime:
			ours = append(ours, c.ID)
		default:
			others = append(others, c.ID)
		}
	}
	return ours, others, nil
}

// labelDocker is on every container of dockerd, whose own restart policies and records
// no move knows of (moby, libcontainerd/types).
const labelDocker = "com.docker/engine.bundle.path"

// movable names what stands in the way whatever the destination is.
func movable(r *containers.Container, spec *specs.Spec) error {
	var errs []error
	no := func(format string, args ...any) {
		errs = append(errs, fmt.Errorf("container %s: "+format, append([]any{r.ID}, args...)...))
	}
	if r.Runtime.Name != Runtime {
		no("its runtime is %s, only containers of %s can be moved", r.Runtime.Name, Runtime)
	}
	if pod := podOf(r, spec); pod != "" {
		no("it belongs to the pod sandbox %s, and pods are moved as a whole or not at all", pod)
	}
	if r.Labels[labelDocker] != "" {
		no("it is dockerd's, which would start it anew when it has left")
	}
	if r.SnapshotKey == "" || r.Snapshotter == "" {
		no("its root filesystem is no snapshot of containerd (ctr run --rootfs): start it from an image")
	}
	if r.Image == "" {
		no("it was made from no image")
	}
	return errors.Join(errs...)
}

// podOf is the sandbox of the pod that a container belongs to, empty if there is none.
func podOf(r *containers.Container, spec *specs.Spec) string {
	if r.SandboxID == "" && spec != nil {
		return spec.Annotations[sandboxAnnotation]
	}
	return r.SandboxID
}

func (s *Source) readSpec(r *containers.Container) error {
	if r.Spec == nil {
		return fmt.Errorf("container %s has no OCI configuration", r.ID)
	}
	s.Spec = &specs.Spec{}
	if err := json.Unmarshal(r.Spec.GetValue(), s.Spec); err != nil {
		return fmt.Errorf("container %s: OCI configuration of type %s: %w", r.ID, r.Spec.GetTypeUrl(), err)
	}
	s.Container.Spec, s.Container.SpecType = r.Spec.GetValue(), r.Spec.GetTypeUrl()
	return nil
}

func (h *Host) readTask(ctx context.Context, s *Source) error {
	id := s.Container.ID
	r, err := h.client.TaskService().Get(ctx, &tasks.GetRequest{ContainerID: id})
	if err != nil {
		if err = errgrpc.ToNative(err); errdefs.IsNotFound(err) {
			return fmt.Errorf("container %s does not run", id)
		}
		return fmt.Errorf("task of container %s: %w", id, err)
	}
	p := r.Process
	if p.Status != task.Status_RUNNING && p.Status != task.Status_PAUSED {
		return fmt.Errorf("container %s is %s: only a running or a paused one can be moved or saved", id, strings.ToLower(p.Status.String()))
	}
	s.Pid, s.Paused = int(p.Pid), p.Status == task.Status_PAUSED
	s.Container.Streams = peer.Streams{Stdin: p.Stdin, Stdout: p.Stdout, Stderr: p.Stderr, Terminal: p.Terminal}
	s.Memory, err = h.memory(ctx, id)
	return err
}

// memory asks the container's cgroup.
func (h *Host) memory(ctx context.Context, id string) (uint64, error) {
	r, err := h.client.TaskService().Metrics(ctx, &tasks.MetricsRequest{Filters: []string{"id==" + id}})
	if err != nil {
		return 0, fmt.Errorf("memory of container %s: %w", id, errgrpc.ToNative(err))
	}
	for _, m := range r.Metrics {
		if m.ID == id {
			return memoryOf(m)
		}
	}
	return 0, nil // no cgroup that counts memory
}

func memoryOf(m *types.Metric) (uint64, error) {
	v, err := typeurl.UnmarshalAny(m.Data)
	if err != nil {
		return 0, fmt.Errorf("metrics of container %s: %w", m.ID, err)
	}
	switch v := v.(type) {
	case *cgroup1.Metrics:
		return v.GetMemory().GetTotalRSS() + v.GetMemory().GetTotalMappedFile(), nil
	case *cgroup2.Metrics:
		return v.GetMemory().GetAnon() + v.GetMemory().GetShmem(), nil
	}
	return 0, nil
}

func (h *Host) readSnapshot(ctx context.Context, s *Source, r *containers.Container) error {
	snapshotter := h.client.SnapshotService(r.Snapshotter)
	info, err := snapshotter.Stat(ctx, r.SnapshotKey)
	if err != nil {
		return fmt.Errorf("container %s: its snapshot %s: %w", r.ID, r.SnapshotKey, err)
	}
	usage, err := snapshotter.Usage(ctx, r.SnapshotKey)
	if err != nil {
		return fmt.Errorf("container %s: size of its snapshot %s: %w", r.ID, r.SnapshotKey, err)
	}
	s.Container.Snapshot = peer.Snapshot{
		Snapshotter: r.Snapshotter, Key: r.SnapshotKey, Parent: info.Parent,
		ReadOnly: info.Kind == snapshots.KindView, Size: usage.Size, Labels: inherited(info.Labels),
	}
	for key := info.Parent; key != ""; key = info.Parent {
		if info, err = snapshotter.Stat(ctx, key); err == nil {
			usage, err = snapshotter.Usage(ctx, key)
		}
		if err != nil {
			return fmt.Errorf("container %s: layer %s of its image: %w", r.ID, key, err)
		}
		s.Container.Snapshot.Layers += usage.Size
	}
	return nil
}

// inherited are the labels by which a snapshotter is told how to mount
// (snapshots.FilterInheritedLabels), not those of garbage collection.
func inherited(labels map[string]string) map[string]string {
	kept := map[string]string{}
	for k, v := range labels {
		if strings.HasPrefix(k, "containerd.io/snapshot/") && !strings.HasPrefix(k, "containerd.io/snapshot.ref") {
			kept[k] = v
		}
	}
	return kept
}

// CgroupVersion is the version of the hierarchy that containers are in here.
func CgroupVersion() int {
	if cgroups.Mode() == cgroups.Unified {
		return 2
	}
	return 1
}

func anyOf(a typeurl.Any) *peer.Any {
	if a == nil {
		return nil
	}
	return &peer.Any{Type: a.GetTypeUrl(), Value: a.GetValue()}
}

func without(m map[string]string, key string) map[string]string {
	kept := map[string]string{}
	for k, v := range m {
		if k != key {
			kept[k] = v
		}
	}
	return kept
}
