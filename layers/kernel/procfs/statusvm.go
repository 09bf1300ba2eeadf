// SPDX-License-Identifier: Apache-2.0

package procfs

// setVM takes the memory lines of status.
func (s *Status) setVM(key []byte, c *cursor) bool {
	p := s.Vm.field(key)
	if p == nil {
		return false
	}
	s.HasMM = true
	n := c.dec("size")
	c.skip()
	c.literal("kB")
	if n > ^uint64(0)/1024 {
		c.fail("size", errRange)
	}
	*p = n * 1024
	return true
}

// field is where the line called key is stored, or nil.
func (v *StatusVM) field(key []byte) *uint64 {
	switch string(key) {
	case "VmPeak":
		return &v.Peak
	case "VmSize":
		return &v.Size
	case "VmLck":
		return &v.Locked
	case "VmPin":
		return &v.Pinned
	case "VmHWM":
		return &v.HWM
	case "VmRSS":
		return &v.RSS
	case "RssAnon":
		return &v.RSSAnon
	case "RssFile":
		return &v.RSSFile
	case "RssShmem":
		return &v.RSSShmem
	case "VmData":
		return &v.Data
	case "VmStk":
		return &v.Stack
	case "VmExe":
		return &v.Exe
	case "VmLib":
		return &v.Lib
	case "VmPTE":
		return &v.PTE
	case "VmPMD":
		return &v.PMD
	case "VmSwap":
		return &v.Swap
	case "HugetlbPages":
		return &v.Hugetlb
	}
	return nil
}

// ids reads the four ids of a Uid or Gid line.
func (c *cursor) ids() IDs {
	return IDs{c.dec32("real id"), c.dec32("effective id"), c.dec32("saved id"), c.dec32("fs id")}
}

// list reads signed decimals up to the end of the line.
func (c *cursor) list(what string) []int {
	var out []int
	for c.skip(); c.err == nil && len(c.rest) > 0; c.skip() {
		out = append(out, c.int(what))
	}
	return out
}

func (c *cursor) list32(what string) []uint32 {
	var out []uint32
	for c.skip(); c.err == nil && len(c.rest) > 0; c.skip() {
		out = append(out, c.dec32(what))
	}
	return out
}

// comm takes the rest of the line as an escaped task name.
func (c *cursor) comm() string {
	name, err := unescapeComm(c.rest)
	if err != nil && c.err == nil {
		c.err = err
	}
	c.rest = nil
	return name
}
