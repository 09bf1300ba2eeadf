// SPDX-License-Identifier: Apache-2.0

// Package filetree carries directory trees: an Exporter turns a tree into items
// (spec/state/filetree.proto), an Importer makes the tree of them again. It is a
// mechanism, no subsystem: what a tree is for, and where it lies, is its user's
// to know.
//
// A tree travels in passes. The first sends all of it; each later one compares
// the tree with what the one before saw and sends what has changed or vanished.
// Files may change while a pass reads them. A file that has, or may have, is
// looked at again by the next pass, so that only the last one, made while
// nothing changes any more, has to be consistent, and it is cheap.
//
// What tells a changed file is its inode with size, mtime and ctime. Two things
// escape that, and such files are compared by checksums of their pieces: a time
// stamp is older than the write that it belongs to (see settled), and pages
// that are mapped may be written without any stamp (see ExportOptions).
//
// Nothing is ever looked up by a path that leads through a symbolic link, nor
// out of the tree, nor into another mount: neither a container that renames
// directories while it is exported nor a forged item gets further than the
// tree's root.
//
// Sources: inode(7), openat2(2), statx(2), lseek(2), xattr(7), acl(5),
// Documentation/filesystems/overlayfs.rst.
package filetree
