// SPDX-License-Identifier: Apache-2.0

package host

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/leases"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"

	"github.com/io-mig/mig/layers/request/peer"
)

// leaseFor is how long what was copied stays after an attempt that was cut off,
// so that the next one goes on where it ended. containerd removes it then by
// itself, whatever became of us.
const leaseFor = time.Hour

func leaseID(token string) string { return "mig-" + token }

// blobRef names an unfinished blob in the content store, the same in every
// attempt.
func blobRef(d digest.Digest) string { return "mig-" + d.String() }

// labelContainer is the lease's label with the container's id.
const labelContainer = "io.mig/container"

// lease makes the move's lease, once, and returns a context in which everything
// that is made belongs to it.
func (h *Host) lease(ctx context.Context, id, token string) (context.Context, error) {
	_, err := h.client.LeasesService().Create(ctx, leases.WithID(leaseID(token)),
		leases.WithExpiration(leaseFor), leases.WithLabel(LabelIncoming, token), leases.WithLabel(labelContainer, id))
	if err != nil && !errdefs.IsAlreadyExists(err) {
		return nil, fmt.Errorf("lease of move %s: %w", token, err)
	}
	return leases.WithLease(ctx, leaseID(token)), nil
}

// endLeases lets containerd remove what nothing else refers to, and waits for
// it: the move's lease and those that earlier attempts with the container left
// for this one.
func (h *Host) endLeases(ctx context.Context, id, token string) error {
	filters := []string{fmt.Sprintf("id==%s", leaseID(token))}
	if id != "" {
		filters = append(filters, fmt.Sprintf("labels.%q==%q", labelContainer, id))
	}
	list, err := h.client.LeasesService().List(ctx, filters...)
	if err != nil {
		return fmt.Errorf("leases of move %s: %w", token, err)
	}
	for _, l := range list {
		err := h.client.LeasesService().Delete(ctx, l, leases.SynchronousDelete)
		if err != nil && !errdefs.IsNotFound(err) {
			return fmt.Errorf("lease of move %s: %w", token, err)
		}
	}
	return nil
}

// Store keeps a blob, of which r yields the bytes behind offset. It is there
// only if its digest is right. Of one that was cut off the bytes so far stay.
func (h *Host) Store(ctx context.Context, namespace, id, token string, b *peer.Blob, r io.Reader) error {
	ctx, err := h.lease(in(ctx, namespace), id, token)
	if err != nil {
		return err
	}
	d := descriptor(peer.Descriptor{Digest: b.Digest, Size: b.Size})
	w, err := content.OpenWriter(ctx, h.client.ContentStore(), content.WithRef(blobRef(b.Digest)), content.WithDescriptor(d))
	if errdefs.IsAlreadyExists(err) {
		// It came by another way meanwhile. Its bytes are on their way all the same.
		_, err = io.Copy(io.Discard, r)
		return err
	}
	if err != nil {
		return err
	}
	defer w.Close()
	st, err := w.Status()
	if err != nil {
		return err
	}
	if st.Offset != b.Offset {
		return fmt.Errorf("the content store has %d bytes of it, the source sends from %d", st.Offset, b.Offset)
	}
	if _, err := io.Copy(w, r); err != nil {
		return fmt.Errorf("after some bytes: %w", err)
	}
	err = w.Commit(ctx, b.Size, b.Digest)
	if errdefs.IsAlreadyExists(err) {
		return nil
	}
	if err != nil {
		// What is there is wrong: the next attempt must not go on with it.
		return errors.Join(err, w.Close(), h.client.ContentStore().Abort(ctx, blobRef(b.Digest)))
	}
	return nil
}
