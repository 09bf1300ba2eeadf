// SPDX-License-Identifier: Apache-2.0

package procfs

import (
	"errors"
	"strings"
)

// CgroupEntry is one hierarchy of /proc/PID/cgroup (cgroups(7)). The path is
// relative to the reader's cgroup namespace and may begin with "/..".
type CgroupEntry struct {
	Hierarchy   int      // 0: the unified (v2) hierarchy
	Controllers []string // v1's; a named hierarchy has "name=x"
	Path        string
	Deleted     bool // the cgroup has been removed; the task is a zombie
}

// ParseCgroup reads /proc/PID/cgroup.
func ParseCgroup(data []byte) ([]CgroupEntry, error) {
	var out []CgroupEntry
	err := eachLine("cgroup", data, func(line []byte) error {
		c := cursor{rest: line}
		e := CgroupEntry{Hierarchy: int(c.number(c.until(':', "hierarchy"), 10, 31, "hierarchy"))}
		controllers := c.until(':', "controllers")
		if c.err != nil {
			return c.err
		}
		if len(controllers) > 0 {
			e.Controllers = strings.Split(string(controllers), ",")
		}
		e.Path, e.Deleted = strings.CutSuffix(string(c.rest), deletedSuffix)
		if !strings.HasPrefix(e.Path, "/") {
			return errors.New("path does not begin with a slash")
		}
		out = append(out, e)
		return nil
	})
	if err != nil {
		return nil, err
	}
	return out, nil
}
