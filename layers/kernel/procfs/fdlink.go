// SPDX-License-Identifier: Apache-2.0

package procfs

import (
	"errors"
	"fmt"
	"strings"
)

// FDKind is what a descriptor's link says the file is.
type FDKind uint8

// The kinds of file.
const (
	FDPath        FDKind = iota + 1 // a file with a path: regular, directory, FIFO, unknown device ...
	FDDevice                        // a path below /dev (by name only: stat it)
	FDSocket                        // socket:[inode]
	FDPipe                          // pipe:[inode]
	FDMemfd                         // /memfd:name (deleted)
	FDNamespace                     // net:[inode] and the like: Name is the type
	FDEventfd                       // anon_inode:[eventfd]
	FDEpoll                         // anon_inode:[eventpoll]
	FDTimerfd                       // anon_inode:[timerfd]
	FDSignalfd                      // anon_inode:[signalfd]
	FDInotify                       // anon_inode:inotify
	FDFanotify                      // anon_inode:[fanotify]
	FDPidfd                         // anon_inode:[pidfd] or pidfd:[inode]
	FDIOUring                       // anon_inode:[io_uring]
	FDPerf                          // anon_inode:[perf_event]
	FDUserfaultfd                   // anon_inode:[userfaultfd]
	FDBPF                           // anon_inode:bpf-map, bpf-prog, bpf_link, ...: Name tells
	FDSeccomp                       // anon_inode:seccomp notify
	FDAnonInode                     // any other anon_inode: Name tells
	FDOther                         // any other type:[inode]: Name is the type
)

var fdKindNames = [...]string{FDPath: "file", FDDevice: "device", FDSocket: "socket", FDPipe: "pipe",
	FDMemfd: "memfd", FDNamespace: "namespace", FDEventfd: "eventfd", FDEpoll: "epoll",
	FDTimerfd: "timerfd", FDSignalfd: "signalfd", FDInotify: "inotify", FDFanotify: "fanotify",
	FDPidfd: "pidfd", FDIOUring: "io_uring", FDPerf: "perf event", FDUserfaultfd: "userfaultfd",
	FDBPF: "bpf", FDSeccomp: "seccomp listener", FDAnonInode: "anonymous inode", FDOther: "other"}

func (k FDKind) String() string {
	if k > 0 && int(k) < len(fdKindNames) {
		return fdKindNames[k]
	}
	return "invalid"
}

// anonKinds are the names behind "anon_inode:", without their brackets.
var anonKinds = map[string]FDKind{"eventfd": FDEventfd, "eventpoll": FDEpoll, "timerfd": FDTimerfd,
	"signalfd": FDSignalfd, "inotify": FDInotify, "fanotify": FDFanotify, "pidfd": FDPidfd,
	"io_uring": FDIOUring, "perf_event": FDPerf, "userfaultfd": FDUserfaultfd,
	"seccomp notify": FDSeccomp}

// namespaceTypes are the types of ns links (namespaces(7)).
var namespaceTypes = map[string]bool{"cgroup": true, "ipc": true, "mnt": true, "net": true,
	"pid": true, "time": true, "user": true, "uts": true}

// FDLink is the target of a link in /proc/PID/fd, map_files, or of exe, cwd
// and root. Paths begin with a slash and are relative to the READER's root:
// the kernel's d_path stops at the root of the reading process, so the path of
// a file in another mount namespace is the path in that namespace.
type FDLink struct {
	Kind  FDKind
	Inode uint64 // of type:[inode], else 0
	// Path of FDPath and FDDevice, without " (deleted)".
	Path string
	// Name of a memfd, of an anonymous inode (no brackets), or the type of
	// type:[inode].
	Name string
	// Deleted: the link ends with " (deleted)". That is the kernel's mark for
	// a file without a name, and also a legal ending of a name: the two are
	// told apart by lstat of Path + " (deleted)", comparing device and inode
	// with fstat of the descriptor, and by st_nlink.
	Deleted bool
}

// ParseFDLink classifies a link's target. Only a path can contain a slash at
// its beginning, so an application cannot make a file look like another kind,
// but for FDMemfd: a deleted file "memfd:x" of the root directory reads the
// same. fcntl(F_GET_SEALS) tells them apart.
func ParseFDLink(target string) (FDLink, error) {
	switch {
	case target == "":
		return FDLink{}, parseError("link", 0, nil, errEmpty)
	case target[0] == '/':
		return pathLink(target), nil
	}
	if name, ok := strings.CutPrefix(target, "anon_inode:"); ok {
		return anonLink(name), nil
	}
	name, inode, err := bracketed(target)
	if err != nil {
		return FDLink{}, parseError("link", 0, []byte(target), err)
	}
	l := FDLink{Kind: FDOther, Name: name, Inode: inode}
	switch {
	case name == "socket":
		l.Kind = FDSocket
	case name == "pipe":
		l.Kind = FDPipe
	case name == "pidfd":
		l.Kind = FDPidfd
	case namespaceTypes[name]:
		l.Kind = FDNamespace
	}
	return l, nil
}

func pathLink(target string) FDLink {
	path, deleted := strings.CutSuffix(target, deletedSuffix)
	if name, ok := strings.CutPrefix(path, memfdPrefix); ok && deleted {
		return FDLink{Kind: FDMemfd, Name: name, Deleted: true}
	}
	l := FDLink{Kind: FDPath, Path: path, Deleted: deleted}
	if strings.HasPrefix(path, "/dev/") && !deleted {
		l.Kind = FDDevice
	}
	return l
}

func anonLink(name string) FDLink {
	if len(name) > 1 && name[0] == '[' && name[len(name)-1] == ']' {
		name = name[1 : len(name)-1]
	}
	kind := anonKinds[name]
	switch {
	case kind != 0:
	case strings.HasPrefix(name, "bpf"), strings.HasPrefix(name, "btf"):
		kind = FDBPF
	default:
		kind = FDAnonInode
	}
	return FDLink{Kind: kind, Name: name}
}

// bracketed reads "type:[inode]".
func bracketed(s string) (name string, inode uint64, err error) {
	name, rest, ok := strings.Cut(s, ":[")
	if !ok || name == "" || !strings.HasSuffix(rest, "]") {
		return "", 0, errors.New("neither a path nor type:[inode]")
	}
	inode, err = parseUint([]byte(rest[:len(rest)-1]), 10, 64)
	if err != nil {
		return "", 0, fmt.Errorf("inode %w", err)
	}
	return name, inode, nil
}

// NSLink is a namespace's identity: Inode is unique among those that exist.
type NSLink struct {
	Type  string // "net", also for "net_for_children"-like links
	Inode uint64
}

// ParseNSLink reads the target of a link in /proc/PID/ns.
func ParseNSLink(target string) (NSLink, error) {
	name, inode, err := bracketed(target)
	if err != nil {
		return NSLink{}, parseError("ns link", 0, []byte(target), err)
	}
	return NSLink{Type: name, Inode: inode}, nil
}
