// SPDX-License-Identifier: Apache-2.0

package host

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"

	"github.com/io-mig/mig/layers/request"
	"github.com/io-mig/mig/layers/request/peer"
)

// findings gathers what does not fit.
type findings struct{ list []peer.Mismatch }

func (f *findings) no(what, remedy, format string, args ...any) {
	f.list = append(f.list, peer.Mismatch{What: what, Why: fmt.Sprintf(format, args...), Remedy: remedy})
}

// Consider looks whether containerd and this host can take what a source
// offers, and touches nothing. The error is one of looking.
func (h *Host) Consider(ctx context.Context, o *peer.Offer, reserved Resources) (*peer.Answer, error) {
	ctx = in(ctx, o.Namespace)
	h.awake(ctx)
	var f findings
	a := &peer.Answer{}
	if v := CgroupVersion(); v != o.CgroupVersion {
		f.no("cgroup version", "", "the container's cgroups are of version %d, this host's of version %d", o.CgroupVersion, v)
	}
	if o.Container.Runtime.Name != Runtime {
		f.no("runtime", "", "%s cannot take a container in, only %s can", o.Container.Runtime.Name, Runtime)
	}
	if err := h.considerShim(); err != nil {
		f.no("runtime", "install containerd-shim-mig-v1, and mig-engine beside it, in containerd's PATH", "%v", err)
	}
	taken, err := h.taken(ctx, o)
	if err != nil {
		return nil, err
	}
	f.list = append(f.list, taken...)
	f.list = append(f.list, checkSpec(o.Container.Spec, o.Container.Copied())...)
	_, found, warnings := arrive(o.Container.Streams)
	f.list, a.Warnings = append(f.list, found...), warnings
	if a.Wanted, err = h.considerImage(ctx, o, &f); err != nil {
		return nil, err
	}
	if err := h.considerResources(ctx, o, a.Wanted, reserved, &f); err != nil {
		return nil, err
	}
	a.Mismatches = f.list
	return a, nil
}

// considerShim looks for the shim where containerd would.
func (h *Host) considerShim() error {
	pid, err := h.daemon()
	if err != nil {
		return err
	}
	env, err := os.ReadFile(fmt.Sprintf("/proc/%d/environ", pid))
	if err != nil {
		return fmt.Errorf("PATH of containerd: %w", err)
	}
	path := ""
	for v := range strings.SplitSeq(string(env), "\x00") {
		if p, ok := strings.CutPrefix(v, "PATH="); ok {
			path = p
		}
	}
	root := fmt.Sprintf("/proc/%d/root", pid)
	for _, dir := range filepath.SplitList(path) {
		file := filepath.Join(dir, "containerd-shim-mig-v1")
		// In containerd's own view, unless a link there is absolute: then ours.
		for _, f := range []string{filepath.Join(root, file), file} {
			if !isProgram(f) {
				continue
			}
			real, err := filepath.EvalSymlinks(f)
			if err != nil {
				return err
			}
			if engine := filepath.Join(filepath.Dir(real), request.ProgramName); !isProgram(engine) {
				return fmt.Errorf("there is no %s, which belongs beside the shim", engine)
			}
			return nil
		}
	}
	return fmt.Errorf("there is no containerd-shim-mig-v1 in containerd's PATH %q", path)
}

func isProgram(file string) bool {
	st, err := os.Stat(file)
	return err == nil && st.Mode().IsRegular() && st.Mode()&0o111 != 0
}

// taken names what exists already under a name that the container needs.
func (h *Host) taken(ctx context.Context, o *peer.Offer) ([]peer.Mismatch, error) {
	var f findings
	c := &o.Container
	switch r, err := h.client.ContainerService().Get(ctx, c.ID); {
	case err == nil && r.Labels[LabelIncoming] != "":
		f.no("id", "wait for its end", "container %s is on its way here by another move, %s", c.ID, r.Labels[LabelIncoming])
	case err == nil:
		f.no("id", "remove or rename it", "there is a container %s in the namespace %s already", c.ID, o.Namespace)
	case !errdefs.IsNotFound(err):
		return nil, fmt.Errorf("look for a container %s: %w", c.ID, err)
	}
	snapshotters, err := h.plugins(ctx, "io.containerd.snapshotter.v1", "root")
	if err != nil {
		return nil, err
	}
	if _, ok := snapshotters[c.Snapshot.Snapshotter]; !ok {
		f.no("snapshotter", "migd --snapshotter FROM=TO maps it to another", "there is no %s here, there is %s",
			c.Snapshot.Snapshotter, strings.Join(sortedKeys(snapshotters), ", "))
		return f.list, nil
	}
	switch _, err := h.client.SnapshotService(c.Snapshot.Snapshotter).Stat(ctx, c.Snapshot.Key); {
	case err == nil:
		f.no("snapshot", "remove it", "there is a snapshot %s of %s already", c.Snapshot.Key, c.Snapshot.Snapshotter)
	case !errdefs.IsNotFound(err):
		return nil, fmt.Errorf("look for a snapshot %s: %w", c.Snapshot.Key, err)
	}
	return f.list, nil
}

// considerImage lists the blobs that are missing.
func (h *Host) considerImage(ctx context.Context, o *peer.Offer, f *findings) ([]peer.Wanted, error) {
	i := &o.Container.Image
	switch img, err := h.client.ImageService().Get(ctx, i.Name); {
	case err == nil && img.Target.Digest != i.Target.Digest:
		f.no("image", "remove or rename it", "%s is %s here and %s on the source", i.Name, img.Target.Digest, i.Target.Digest)
	case err != nil && !errdefs.IsNotFound(err):
		return nil, fmt.Errorf("look for the image %s: %w", i.Name, err)
	}
	unpacked := h.unpacked(ctx, o)
	store := h.client.ContentStore()
	var wanted []peer.Wanted
	for _, b := range i.Blobs {
		_, err := store.Info(ctx, b.Digest)
		switch {
		case err == nil:
		case !errdefs.IsNotFound(err):
			return nil, fmt.Errorf("look for blob %s: %w", b.Digest, err)
		case !b.Absent:
			wanted = append(wanted, peer.Wanted{Digest: b.Digest, Offset: partial(ctx, store, b.Digest)})
		case !unpacked:
			f.no("image", "pull "+i.Name+" on the destination", "%s %s is neither here nor on the source", b.MediaType, b.Digest)
		}
	}
	return wanted, nil
}

// unpacked: the root filesystem can be made without the image's layers.
func (h *Host) unpacked(ctx context.Context, o *peer.Offer) bool {
	s := &o.Container.Snapshot
	_, err := h.client.SnapshotService(s.Snapshotter).Stat(ctx, s.Parent)
	return err == nil
}

// partial is how much of a blob an attempt before has left.
func partial(ctx context.Context, store content.Store, d digest.Digest) int64 {
	st, err := store.Status(ctx, blobRef(d))
	if err != nil {
		return 0
	}
	return st.Offset
}

// Resources are what moves under way will take, in bytes.
type Resources struct{ Memory, Disk uint64 }

// slack is what a host should have left: memory or disk of a host that is full
// to the last byte is of no use to anybody.
const slack = 64 << 20

// Needs is what an offer will take here, as far as the source knows it.
func Needs(o *peer.Offer, wanted []peer.Wanted, unpacked bool) Resources {
	r := Resources{Memory: o.Memory, Disk: uint64(max(0, o.Container.Snapshot.Size))}
	sizes := map[digest.Digest]int64{}
	for _, b := range o.Container.Image.Blobs {
		sizes[b.Digest] = b.Size
	}
	for _, w := range wanted {
		r.Disk += uint64(max(0, sizes[w.Digest]-w.Offset))
	}
	if !unpacked {
		r.Disk += uint64(max(0, o.Container.Snapshot.Layers))
	}
	return r
}

func (h *Host) considerResources(ctx context.Context, o *peer.Offer, wanted []peer.Wanted, reserved Resources, f *findings) error {
	need := Needs(o, wanted, h.unpacked(ctx, o))
	free, err := available()
	if err != nil {
		return err
	}
	if need.Memory+reserved.Memory+slack > free {
		f.no("memory", "", "the container has %s and moves under way will have %s, %s are available", mib(need.Memory), mib(reserved.Memory), mib(free))
	}
	roots, err := h.plugins(ctx, "io.containerd.snapshotter.v1", "root")
	if err != nil {
		return err
	}
	root := roots[o.Container.Snapshot.Snapshotter]
	if root == "" {
		return nil // one that does not say where its files are
	}
	var st unix.Statfs_t
	if err := unix.Statfs(root, &st); err != nil {
		return fmt.Errorf("free space of %s: %w", root, err)
	}
	// Content store and snapshots usually lie on one file system.
	if space := st.Bavail * uint64(st.Bsize); need.Disk+reserved.Disk+slack > space {
		f.no("disk", "", "%s are needed in %s and %s by moves under way, %s are free", mib(need.Disk), root, mib(reserved.Disk), mib(space))
	}
	return nil
}

// available is the memory in bytes that processes can still get: MemAvailable of
// proc_meminfo(5), in KiB.
func available() (uint64, error) {
	b, err := os.ReadFile("/proc/meminfo")
	if err != nil {
		return 0, fmt.Errorf("memory of this host: %w", err)
	}
	for line := range strings.Lines(string(b)) {
		if v, ok := strings.CutPrefix(line, "MemAvailable:"); ok {
			n, err := strconv.ParseUint(strings.TrimSuffix(strings.TrimSpace(v), " kB"), 10, 64)
			if err != nil {
				return 0, fmt.Errorf("/proc/meminfo: %q: %w", line, err)
			}
			return n << 10, nil
		}
	}
	return 0, errors.New("/proc/meminfo has no MemAvailable")
}

func mib(n uint64) string { return fmt.Sprintf("%d MiB", (n+1<<20-1)>>20) }

func sortedKeys(m map[string]string) []string {
	var keys []string
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}
