// SPDX-License-Identifier: Apache-2.0

package procfs

// Dev is a device number. Kernel-internal file systems have major 0.
type Dev struct {
	Major, Minor uint32
}

// KernelDev splits the kernel's own dev_t, which fdinfo prints as "sdev:":
// 12 bits of major above 20 bits of minor (include/linux/kdev_t.h).
func KernelDev(v uint32) Dev { return Dev{Major: v >> 20, Minor: v & (1<<20 - 1)} }

// Stat is the number as stat(2) returns it in st_dev (glibc's makedev).
func (d Dev) Stat() uint64 {
	major, minor := uint64(d.Major), uint64(d.Minor)
	return major&0xfff<<8 | major&^0xfff<<32 | minor&0xff | minor&^0xff<<12
}

// hexDev reads "fe:00".
func (c *cursor) hexDev(f []byte, what string) Dev {
	d := cursor{rest: f, err: c.err}
	major := d.number(d.until(':', what), 16, 32, what)
	minor := d.number(d.rest, 16, 32, what)
	c.err = d.err
	return Dev{Major: uint32(major), Minor: uint32(minor)}
}
