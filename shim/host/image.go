// SPDX-License-Identifier: Apache-2.0

package host

import (
	"context"
	"fmt"
	"io"

	"github.com/containerd/containerd/v2/core/containers"
	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/errdefs"
	"github.com/containerd/platforms"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/identity"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/io-mig/mig/layers/request/peer"
)

// readImage lists the blobs of the container's image and checks that the
// container's snapshot was made from it.
func (h *Host) readImage(ctx context.Context, s *Source, r *containers.Container) error {
	img, err := h.client.ImageService().Get(ctx, r.Image)
	if err != nil {
		return fmt.Errorf("container %s: its image %s: %w%s", r.ID, r.Image, err, pull(err))
	}
	store := h.client.ContentStore()
	diffs, err := img.RootFS(ctx, store, platforms.Default())
	if err != nil {
		return fmt.Errorf("image %s: its configuration: %w%s", img.Name, err, pull(err))
	}
	if chain := identity.ChainID(diffs).String(); chain != s.Container.Snapshot.Parent {
		return fmt.Errorf("container %s: its root filesystem was made from %s and not from the image %s (%s) as it is now: the image has got another content under the same name",
			r.ID, s.Container.Snapshot.Parent, img.Name, chain)
	}
	blobs, err := h.blobs(ctx, img.Target)
	if err != nil {
		return fmt.Errorf("image %s: %w", img.Name, err)
	}
	s.Container.Image = peer.Image{Name: img.Name, Labels: without(img.Labels, LabelIncoming), Target: described(img.Target), Blobs: blobs}
	return nil
}

// pull is the remedy for what is missing of an image, nothing for another error.
func pull(err error) string {
	if errdefs.IsNotFound(err) {
		return " (the container runs without it, but the other host cannot make it from nothing: pull it again)"
	}
	return ""
}

// blobs lists target and all below it that this platform needs, children
// before their parents.
func (h *Host) blobs(ctx context.Context, target v1.Descriptor) ([]peer.Content, error) {
	store := h.client.ContentStore()
	handler := children(store)
	var list []peer.Content
	seen := map[digest.Digest]bool{}
	var walk func(d v1.Descriptor) error
	walk = func(d v1.Descriptor) error {
		if seen[d.Digest] {
			return nil
		}
		seen[d.Digest] = true
		_, err := store.Info(ctx, d.Digest)
		absent := errdefs.IsNotFound(err)
		if err != nil && !absent {
			return fmt.Errorf("blob %s: %w", d.Digest, err)
		}
		if !absent {
			below, err := handler.Handle(ctx, d)
			if err != nil {
				return fmt.Errorf("%s %s: %w", d.MediaType, d.Digest, err)
			}
			for _, c := range below {
				if err := walk(c); err != nil {
					return err
				}
			}
		}
		list = append(list, peer.Content{Descriptor: described(d), Absent: absent})
		return nil
	}
	return list, walk(target)
}

// children follows indexes and manifests to what this platform runs: one
// manifest, as containerd itself picks it.
func children(store content.Store) images.HandlerFunc {
	return images.LimitManifests(images.FilterPlatforms(images.ChildrenHandler(store), platforms.Default()), platforms.Default(), 1)
}

func described(d v1.Descriptor) peer.Descriptor {
	return peer.Descriptor{MediaType: d.MediaType, Digest: d.Digest, Size: d.Size, Annotations: d.Annotations}
}

func descriptor(d peer.Descriptor) v1.Descriptor {
	return v1.Descriptor{MediaType: d.MediaType, Digest: d.Digest, Size: d.Size, Annotations: d.Annotations}
}

// Open reads a blob of the content store from an offset. The caller closes it.
func (h *Host) Open(ctx context.Context, namespace string, b peer.Descriptor, offset int64) (io.ReadCloser, error) {
	r, err := h.client.ContentStore().ReaderAt(in(ctx, namespace), descriptor(b))
	if err != nil {
		return nil, fmt.Errorf("blob %s: %w", b.Digest, err)
	}
	if offset > r.Size() {
		r.Close()
		return nil, fmt.Errorf("blob %s has %d bytes, the destination wants it from %d", b.Digest, r.Size(), offset)
	}
	return struct {
		io.Reader
		io.Closer
	}{io.NewSectionReader(r, offset, r.Size()-offset), r}, nil
}
