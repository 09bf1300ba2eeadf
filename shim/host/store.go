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

// lease makes the move's lease, once, and returns a context in which everything
// that is made belongs to it.
func (h *Host) lease(ctx context.Context, token string) (context.Context, error) {
	_, err := h.client.LeasesService().Create(ctx, leases.WithID(leaseID(token)),
		leases.WithExpiration(leaseFor), leases.WithLabel(LabelIncoming, token))
	if err != nil && !errdefs.IsAlreadyExists(err) {
		return nil, fmt.Errorf("lease of move %s: %w", token, err)
	}
	return leases.WithLease(ctx, leaseID(token)), nil
}

// endLease lets containerd remove what nothing else refers to, and waits for
// it. Without one there is nothing to do.
func (h *Host) endLease(ctx context.Context, token string) error {
	err := h.client.LeasesService().Delete(ctx, leases.Lease{ID: leaseID(token)}, leases.SynchronousDelete)
	if err != nil && !errdefs.IsNotFound(err) {
		return fmt.Errorf("lease of move %s: %w", token, err)
	}
	return nil
}

// Store keeps a blob, of which r yields the bytes behind offset. It is there
// only if its digest is right. Of one that was cut off the bytes so far stay.
func (h *Host) Store(ctx context.Context, namespace, token string, b *peer.Blob, r io.Reader) error {
	ctx, err := h.lease(in(ctx, namespace), token)
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
