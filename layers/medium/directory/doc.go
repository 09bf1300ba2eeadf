// SPDX-License-Identifier: Apache-2.0

// Package directory is the medium that keeps an image in a directory.
//
// The directory is flat and holds regular, dense files only, so that whatever
// packs directories (containerd's checkpoint tar) takes it as it is:
//
//	mig.manifest  what the image is and what belongs to it; appears last
//	mig.state     every record's header in stream order, and small payloads
//	mig.pages-N   payloads of Bulk bytes and more, at page-aligned offsets
//
// A writer works on unnamed files (O_TMPFILE, open(2)), and links them in at
// Flush, the manifest last: a directory without a manifest holds no image, and
// a writer that is killed leaves nothing. File systems without O_TMPFILE get
// temporary names. A flock(2) on the directory keeps a second writer out.
//
// A large payload costs one pwrite(2) from the caller's buffer into a lane of
// which the caller is the only user; no lock is held. Lanes are separate files
// because a write holds its inode's lock. Neither fallocate(2) before writing
// nor reading a task's memory into a shared mapping of the file pays: on tmpfs
// both were slower than pwrite (docs/image-format.md has the numbers).
package directory

// Bulk is the length from which a payload goes into a lane, in bytes.
const Bulk = 64 << 10
