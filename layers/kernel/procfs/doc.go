// SPDX-License-Identifier: Apache-2.0

// Package procfs parses the text that Linux exports under /proc.
//
// Every file has a pure parser over bytes (ParseMaps, ParseStatus, ...), which
// is what the fuzz targets exercise, and a method on Task or FS that reads the
// file and hands it to that parser. Parsers keep no reference to their input.
//
// Parsers are strict: a line that does not have the shape the kernel prints is
// a *ParseError that names file, line and text. Fields which the kernel may
// add (status, fdinfo, smaps) are not errors; they are kept in the Extra field
// of the result, so that a caller can refuse state that it does not know.
//
// A reader of /proc races with the task that it reads. Unless the task is
// stopped, two files (or two reads of one long file) need not agree, and any
// read can fail because the task has gone: see IsGone.
//
// Sources: proc(5), Documentation/filesystems/proc.rst and the kernel files
// named at each parser.
package procfs
