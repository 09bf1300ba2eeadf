// SPDX-License-Identifier: Apache-2.0

package cgroup

import (
	"bytes"
	"errors"
	"fmt"
	"strings"

	"google.golang.org/protobuf/proto"

	"github.com/io-mig/mig/spec/state"
)

// Limits of what an image may ask for, beside those of an export.
const (
	maxName     = 255 // NAME_MAX
	maxFiles    = 512 // of one cgroup
	maxNames    = 64  // controllers
	permissions = 0o777
)

// errImage marks records that contradict themselves.
var errImage = errors.New("the image's cgroups are invalid")

// decode reads and checks one hierarchy. It knows nothing of the host and of
// processes.
func decode(b []byte) (*state.Hierarchy, error) {
	h := &state.Hierarchy{}
	if err := proto.Unmarshal(b, h); err != nil {
		return nil, fmt.Errorf("%w: %w", errImage, err)
	}
	if err := check(h); err != nil {
		return nil, err
	}
	return h, nil
}

func check(h *state.Hierarchy) error {
	if len(h.Cgroup) > maxCgroups {
		return fmt.Errorf("%w: %d of them, at most %d", errImage, len(h.Cgroup), maxCgroups)
	}
	if err := checkNames(h.Controller, "="); err != nil {
		return err
	}
	if err := checkNames(h.SubtreeControl, ""); err != nil {
		return err
	}
	levels := []int{0}
	for i, c := range h.Cgroup {
		if c == nil || int64(c.Parent) > int64(i) {
			return fmt.Errorf("%w: number %d comes before its parent", errImage, i+1)
		}
		levels = append(levels, levels[c.Parent]+1)
		if levels[i+1] > maxDepth {
			return fmt.Errorf("%w: deeper than %d levels", errImage, maxDepth)
		}
		if err := checkCgroup(c, len(h.Controller) == 0); err != nil {
			return err
		}
	}
	return nil
}

func checkCgroup(c *state.Cgroup, v2 bool) error {
	if !validName(c.Name) {
		return fmt.Errorf("%w: the name %q", errImage, c.Name)
	}
	if !v2 && (c.Threaded || len(c.SubtreeControl) > 0) {
		return fmt.Errorf("%w: %q has what version 1 does not know", errImage, c.Name)
	}
	if err := checkNames(c.SubtreeControl, ""); err != nil {
		return err
	}
	if len(c.Setting) > maxFiles || len(c.File) > maxFiles {
		return fmt.Errorf("%w: %q has more than %d files", errImage, c.Name, maxFiles)
	}
	for _, s := range c.Setting {
		if err := checkSetting(s); err != nil {
			return fmt.Errorf("%q: %w", c.Name, err)
		}
	}
	for _, f := range c.File {
		if f == nil || f.Name != "" && !validName([]byte(f.Name)) || f.Mode&^permissions != 0 {
			return fmt.Errorf("%w: %q: file %v", errImage, c.Name, f)
		}
	}
	for _, m := range c.Member {
		if m == nil || m.Process == 0 || m.Tid > 1<<22 {
			return fmt.Errorf("%w: %q: member %v", errImage, c.Name, m)
		}
	}
	return nil
}

// validName: a single element of a path, as the kernel takes it.
func validName(name []byte) bool {
	return len(name) > 0 && len(name) <= maxName && !bytes.ContainsAny(name, "/\n\x00") &&
		!bytes.Equal(name, []byte(".")) && !bytes.Equal(name, []byte(".."))
}

// checkSetting: the file is one that an export names, and the value text.
func checkSetting(s *state.CgroupSetting) error {
	if s == nil {
		return errImage
	}
	known, _, ok := settingOf(s.Name)
	if !ok || known.form == lost || !validName([]byte(s.Name)) {
		return fmt.Errorf("%w: the setting %q", errImage, s.Name)
	}
	if len(s.Value) > maxValue || bytes.ContainsFunc(s.Value, func(r rune) bool { return r != '\n' && (r < ' ' || r > '~') }) {
		return fmt.Errorf("%w: %d bytes for %s", errImage, len(s.Value), s.Name)
	}
	return nil
}

// checkNames: controllers.
func checkNames(names []string, more string) error {
	if len(names) > maxNames {
		return fmt.Errorf("%w: %d controllers", errImage, len(names))
	}
	for _, n := range names {
		if n == "" || len(n) > maxName || strings.Trim(n, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.-"+more) != "" {
			return fmt.Errorf("%w: the controller %q", errImage, n)
		}
	}
	return nil
}
