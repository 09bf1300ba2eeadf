// SPDX-License-Identifier: Apache-2.0

package image

import (
	"archive/tar"
	"bytes"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"
)

// layer is a root file system in the making: an uncompressed tar in memory.
type layer struct {
	buffer bytes.Buffer
	writer *tar.Writer
	seen   map[string]bool // paths without the leading slash
}

func newLayer() *layer {
	l := &layer{seen: map[string]bool{}}
	l.writer = tar.NewWriter(&l.buffer)
	return l
}

// directory adds name and the directories above it.
func (l *layer) directory(name string, mode int64) error {
	name = strings.Trim(name, "/")
	if name == "" || name == "." || l.seen[name] {
		return nil
	}
	if err := l.directory(path.Dir(name), 0o755); err != nil {
		return err
	}
	l.seen[name] = true
	return l.writer.WriteHeader(&tar.Header{Typeflag: tar.TypeDir, Name: name + "/", Mode: mode})
}

// file adds a regular file and the directories above it. The first of two
// files with one name wins.
func (l *layer) file(name string, mode int64, content []byte) error {
	return l.add(&tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: mode, Size: int64(len(content))}, content)
}

// symlink adds a symbolic link and the directories above it.
func (l *layer) symlink(name, target string) error {
	return l.add(&tar.Header{Typeflag: tar.TypeSymlink, Name: name, Linkname: target, Mode: 0o777}, nil)
}

func (l *layer) add(header *tar.Header, content []byte) error {
	header.Name = strings.Trim(header.Name, "/")
	if l.seen[header.Name] {
		return nil
	}
	if err := l.directory(path.Dir(header.Name), 0o755); err != nil {
		return err
	}
	l.seen[header.Name] = true
	if err := l.writer.WriteHeader(header); err != nil {
		return err
	}
	_, err := l.writer.Write(content)
	return err
}

// host copies a file of this machine to the same path, following links: what
// lies behind a chain of links is wanted, not the chain.
func (l *layer) host(name string) error {
	info, err := os.Stat(name)
	if err != nil {
		return err
	}
	if !info.Mode().IsRegular() {
		return fmt.Errorf("%s is %v, not a regular file", name, info.Mode())
	}
	content, err := os.ReadFile(name)
	if err != nil {
		return err
	}
	return l.file(name, int64(info.Mode().Perm()), content)
}

// program copies a program of this machine and the libraries it loads.
func (l *layer) program(name string) error {
	needed, err := libraries(name)
	if err != nil {
		return err
	}
	for _, file := range append(needed, name) {
		if err := l.host(file); err != nil {
			return err
		}
	}
	return nil
}

// tree copies the regular files below a directory of this machine to the same
// paths, those that keep refuses left out.
func (l *layer) tree(dir string, keep func(string) bool) error {
	return filepath.WalkDir(dir, func(name string, entry fs.DirEntry, err error) error {
		if err != nil || !entry.Type().IsRegular() || !keep(name) {
			return err
		}
		return l.host(name)
	})
}

// bytes ends the tar.
func (l *layer) bytes() ([]byte, error) {
	err := l.writer.Close()
	return l.buffer.Bytes(), err
}
