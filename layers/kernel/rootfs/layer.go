// SPDX-License-Identifier: Apache-2.0

package rootfs

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/io-mig/mig/layers/kernel/procfs"
	"github.com/io-mig/mig/spec/record"
)

// layer is a container's writable layer on its host.
type layer struct {
	// path of the directory that is exported.
	path string
	// overlay: it is the upper directory of one. Otherwise it is the whole root,
	// which is compared with the base.
	overlay bool
	base    string
}

// refusal is a tree that cannot be carried.
type refusal struct{ what, why, remedy string }

func (r *refusal) Error() string { return r.what + ": " + r.why }

func (r *refusal) finding() record.Finding {
	return record.Finding{FD: -1, Subsystem: Name, What: r.what, Why: r.why, Remedy: r.remedy}
}

// findLayer finds out where the writable layer of the root at path is; nil if
// it has none. The mounts are the host's.
func findLayer(mounts []procfs.Mount, path, base string) (*layer, error) {
	if path == "" {
		return nil, errors.New("nobody said where the container's root is mounted")
	}
	real, err := filepath.EvalSymlinks(path)
	if err != nil {
		return nil, fmt.Errorf("the container's root: %w", err)
	}
	var m *procfs.Mount
	for i := range mounts {
		if mounts[i].Target == real {
			m = &mounts[i] // the last covers the others
		}
	}
	if m == nil || m.FSType != "overlay" {
		if base == "" {
			return nil, &refusal{"the container's root " + real, "it is no overlay, so that nobody can tell what the container has changed", "choose the overlayfs snapshotter, or name a directory with the content of its image (" + OptionBase + ")"}
		}
		return &layer{path: real, base: base}, nil
	}
	var upper string
	for _, o := range m.SuperOptions {
		name, value, _ := strings.Cut(o, "=")
		switch name {
		case "upperdir":
			upper = value
		case "redirect_dir", "metacopy":
			// "nofollow" and "off" make nothing that the upper directory lacks.
			if value == "on" {
				return nil, &refusal{"the container's root " + real, "its overlay is mounted with " + o + ", so that its upper directory does not have all that it changed", "mount it with " + name + "=off"}
			}
		}
	}
	switch {
	case upper == "":
		return nil, nil // read-only
	case !filepath.IsAbs(upper):
		return nil, &refusal{"the container's root " + real, "the upper directory of its overlay is known by a relative path only: " + upper, ""}
	}
	return &layer{path: upper, overlay: true}, nil
}

// hostLayer is findLayer for the container that is exported.
func (s *Subsystem) hostLayer() (*layer, error) {
	mounts, err := procfs.Host().Process(os.Getpid()).Mountinfo()
	if err != nil {
		return nil, err
	}
	return findLayer(mounts, s.env.Source.Files.Root, s.env.Options[OptionBase])
}
