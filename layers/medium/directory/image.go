// SPDX-License-Identifier: Apache-2.0

package directory

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"

	"github.com/io-mig/mig/spec/image"
	"golang.org/x/sys/unix"
)

// Image is a complete image, open for reading. Its content is not trusted:
// files are read, never mapped, because whoever can truncate a mapped file can
// kill the reader with SIGBUS.
type Image struct {
	dir      *folder
	manifest *image.Manifest
	state    *os.File
	lanes    []*os.File
}

// OpenImage opens the image in a directory and checks manifest, file headers
// and sizes. It reads no records.
func OpenImage(path string) (_ *Image, err error) {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &fs.PathError{Op: "open image", Path: path, Err: err}
	}
	i := &Image{dir: &folder{File: os.NewFile(uintptr(fd), path), path: path}}
	defer func() {
		if err != nil {
			_ = i.Close()
			err = fmt.Errorf("image %s: %w", path, err)
		}
	}()
	if err := i.readManifest(); err != nil {
		return nil, err
	}
	return i, i.openFiles()
}

func (i *Image) readManifest() error {
	f, _, err := i.dir.openFile(image.ManifestName)
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("no image is there, or an incomplete one: %w", err)
	}
	if err != nil {
		return err
	}
	defer f.Close()
	i.manifest, err = image.DecodeManifest(f, image.ManifestName)
	return err
}

func (i *Image) openFiles() error {
	if len(i.manifest.Files) == 0 {
		return &image.Error{File: image.ManifestName, Record: -1, Err: fmt.Errorf("%w: it lists no files", image.ErrFormat)}
	}
	for lane, want := range i.manifest.Files {
		f, size, err := i.dir.openFile(want.Name)
		if err != nil {
			return err
		}
		if lane == 0 {
			i.state = f
		} else {
			i.lanes = append(i.lanes, f)
		}
		if size != want.Size {
			kind := image.ErrTruncated
			if size > want.Size {
				kind = image.ErrFormat
			}
			return &image.Error{File: want.Name, Record: -1, Offset: min(size, want.Size),
				Err: fmt.Errorf("%w: it has %d bytes, the manifest says %d", kind, size, want.Size)}
		}
		if lane == 0 {
			continue // its reader checks the header
		}
		if err := laneHeader(f, lane); err != nil {
			return &image.Error{File: want.Name, Record: -1, Err: err}
		}
	}
	return nil
}

func laneHeader(f *os.File, lane int) error {
	var head [image.FileHeaderSize]byte
	n, err := f.ReadAt(head[:], 0)
	if err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	h, err := image.DecodeFileHeader(head[:n])
	if err != nil {
		return err
	}
	return h.Expect(image.KindPages, lane)
}

// Manifest is the image's manifest; the caller does not modify it.
func (i *Image) Manifest() *image.Manifest { return i.manifest }

// Close closes the files.
func (i *Image) Close() error {
	if i.state != nil {
		_ = i.state.Close()
	}
	for _, f := range i.lanes {
		_ = f.Close()
	}
	return i.dir.Close()
}

// reader starts a new pass over the stream.
func (i *Image) reader() (*image.Reader, error) {
	o := image.Options{Name: image.StateName, Size: i.manifest.Files[0].Size, Subsystems: i.manifest.Names()}
	for _, f := range i.manifest.Files[1:] {
		o.Lanes = append(o.Lanes, f.Size)
	}
	return image.NewReader(bufio.NewReaderSize(io.NewSectionReader(i.state, 0, o.Size), stateBuffer), o)
}

// complete checks a stream that was read to its end against the manifest.
func (i *Image) complete(end image.End) error {
	var records, bytes uint64
	for _, f := range i.manifest.Files {
		records, bytes = records+f.Records, bytes+f.Bytes
	}
	if records != end.Records || bytes != end.Bytes {
		return &image.Error{File: image.ManifestName, Record: -1, Err: fmt.Errorf("%w: it counts %d records with %d bytes, the stream has %d with %d",
			image.ErrFormat, records, bytes, end.Records, end.Bytes)}
	}
	return nil
}

// Walk calls fn for every record's header in stream order; no payload is read.
func (i *Image) Walk(fn func(image.Entry) error) error {
	d, err := i.reader()
	if err == nil {
		err = image.Walk(d, fn)
	}
	if err == nil {
		err = i.complete(d.End())
	}
	return i.wrap(err)
}

// Verify reads everything and checks every checksum: see image.Verify.
func (i *Image) Verify(fn func(e image.Entry, err error)) error {
	d, err := i.reader()
	if err != nil {
		return i.wrap(err)
	}
	lanes := make([]io.ReaderAt, len(i.lanes))
	for n, f := range i.lanes {
		lanes[n] = f
	}
	if err = image.Verify(d, lanes, fn); err == nil {
		err = i.complete(d.End())
	}
	return i.wrap(err)
}

func (i *Image) wrap(err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("image %s: %w", i.dir.path, err)
}
