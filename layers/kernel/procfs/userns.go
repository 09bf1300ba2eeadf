// SPDX-License-Identifier: Apache-2.0

package procfs

// IDMap is one extent of uid_map or gid_map (user_namespaces(7)).
type IDMap struct {
	Inside, Outside, Count uint32
}

// ParseIDMap reads uid_map or gid_map. No line means no id is mapped yet.
func ParseIDMap(data []byte) ([]IDMap, error) {
	var out []IDMap
	err := eachLine("uid_map", data, func(line []byte) error {
		c := cursor{rest: line}
		out = append(out, IDMap{c.dec32("inner id"), c.dec32("outer id"), c.dec32("count")})
		return c.end()
	})
	if err != nil {
		return nil, err
	}
	return out, nil
}

// TimensOffset is one clock of timens_offsets (time_namespaces(7)): what is
// added to the host's clock.
type TimensOffset struct {
	Clock string // "monotonic" or "boottime"
	Sec   int64
	Nsec  int64 // 0 to 999999999
}

// ParseTimensOffsets reads timens_offsets.
func ParseTimensOffsets(data []byte) ([]TimensOffset, error) {
	var out []TimensOffset
	err := eachLine("timens_offsets", data, func(line []byte) error {
		c := cursor{rest: line}
		out = append(out, TimensOffset{string(c.field("clock")), c.int64("seconds"), c.int64("nanoseconds")})
		return c.end()
	})
	if err != nil {
		return nil, err
	}
	return out, nil
}
