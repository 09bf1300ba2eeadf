// SPDX-License-Identifier: Apache-2.0

package host

import (
	"context"
	"errors"
	"fmt"

	"github.com/containerd/errdefs"
)

// Base finds out what a container's root was before the container changed it, for
// a snapshotter that does not keep the changes apart as an overlay does (native).
// It is a directory of this host, or empty where none is needed. release frees
// it; if nobody calls it, containerd does after an hour.
func (h *Host) Base(ctx context.Context, s *Source, token string) (dir string, release func() error, err error) {
	release = func() error { return nil }
	ctx = in(ctx, s.Namespace)
	snapshot := &s.Container.Snapshot
	snapshotter := h.client.SnapshotService(snapshot.Snapshotter)
	mounts, err := snapshotter.Mounts(ctx, snapshot.Key)
	if err != nil {
		return "", release, fmt.Errorf("snapshot %s: %w", snapshot.Key, err)
	}
	if len(mounts) != 1 || mounts[0].Type != "bind" || snapshot.ReadOnly {
		return "", release, nil
	}
	id := s.Container.ID
	leased, err := h.lease(ctx, id, token)
	if err != nil {
		return "", release, err
	}
	key := "mig-base-" + token
	free := func() error {
		ctx := context.WithoutCancel(ctx)
		err := snapshotter.Remove(ctx, key)
		if errdefs.IsNotFound(err) {
			err = nil
		}
		return errors.Join(err, h.endLeases(ctx, id, token))
	}
	view, err := snapshotter.View(leased, key, snapshot.Parent)
	if err == nil && (len(view) != 1 || view[0].Type != "bind") {
		err = fmt.Errorf("its view is no directory: %v", view)
	}
	if err != nil {
		return "", release, errors.Join(fmt.Errorf("the image's root as it was, snapshot %s: %w", snapshot.Parent, err), free())
	}
	return view[0].Source, free, nil
}
