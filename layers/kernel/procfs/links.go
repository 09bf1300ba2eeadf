// SPDX-License-Identifier: Apache-2.0

package procfs

import "strconv"

// FDLink reads and classifies the link of descriptor fd.
func (t Task) FDLink(fd int) (FDLink, error) { return t.link("fd/" + strconv.Itoa(fd)) }

// Exe is the executable; an ENOENT error (IsGone) for kernel threads and
// zombies.
func (t Task) Exe() (FDLink, error) { return t.link("exe") }

// Cwd is the working directory.
func (t Task) Cwd() (FDLink, error) { return t.link("cwd") }

// Root is the root directory as the reader sees it: "/" inside a container
// too, if it has a mount namespace of its own.
func (t Task) Root() (FDLink, error) { return t.link("root") }

// MapFile is the file behind the mapping [start, end), unescaped.
func (t Task) MapFile(start, end uint64) (FDLink, error) {
	b := strconv.AppendUint([]byte("map_files/"), start, 16)
	b = strconv.AppendUint(append(b, '-'), end, 16)
	return t.link(string(b))
}

func (t Task) link(name string) (FDLink, error) {
	target, err := t.fs.readLink(t.file(name))
	if err != nil {
		return FDLink{}, err
	}
	l, err := ParseFDLink(target)
	return l, t.fs.name(t.file(name), err)
}

// FDInfo reads the fdinfo of descriptor fd.
func (t Task) FDInfo(fd int) (FDInfo, error) {
	name := t.file("fdinfo/" + strconv.Itoa(fd))
	p := newFDInfoParser()
	if err := t.fs.stream(name, p.line); err != nil {
		return FDInfo{}, err
	}
	return p.finish(t.fs.path(name))
}

// Namespace reads one link of ns, such as "net" or "pid_for_children".
func (t Task) Namespace(name string) (NSLink, error) {
	file := t.file("ns/" + name)
	target, err := t.fs.readLink(file)
	if err != nil {
		return NSLink{}, err
	}
	l, err := ParseNSLink(target)
	return l, t.fs.name(file, err)
}

// Namespaces reads all links of ns, by name.
func (t Task) Namespaces() (map[string]NSLink, error) { return t.stillNamespaces(t.namespaces) }

func (t Task) namespaces() (map[string]NSLink, error) {
	names, err := t.fs.names(t.file("ns"))
	if err != nil {
		return nil, err
	}
	out := make(map[string]NSLink, len(names))
	for _, name := range names {
		if out[name], err = t.Namespace(name); err != nil {
			return nil, err
		}
	}
	return out, nil
}
