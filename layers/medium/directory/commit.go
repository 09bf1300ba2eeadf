// SPDX-License-Identifier: Apache-2.0

package directory

import (
	"context"
	"errors"
	"fmt"

	"github.com/io-mig/mig/layers/medium"
	"github.com/io-mig/mig/spec/image"
)

// Flush completes the image: it waits for the pushes under way, writes what is
// buffered and the end marker, makes the files durable (unless NoSync) and
// names them, the manifest last. A push afterwards takes the manifest away
// until the next Flush.
func (w *Writer) Flush(ctx context.Context) error {
	held := make([]*lane, 0, len(w.lanes))
	defer func() {
		for _, l := range held {
			w.free <- l
		}
	}()
	for range w.lanes {
		l, err := w.take(ctx)
		if err != nil {
			return err
		}
		held = append(held, l)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.err != nil || w.index != nil {
		return w.err
	}
	if w.manifest == nil {
		return fmt.Errorf("flush %s: %w: the command %q must come first", w.path, medium.ErrNoManifest, medium.VerbManifest)
	}
	if err := w.commit(); err != nil {
		w.err = fmt.Errorf("image %s: %w", w.path, err)
	}
	return w.err
}

// commit runs with mu and every lane held.
func (w *Writer) commit() error {
	files, list, err := w.finish()
	if err != nil {
		return err
	}
	w.manifest.Files = list
	body, err := w.manifest.Encode()
	if err != nil {
		return err
	}
	index, err := w.dir.create(image.ManifestName)
	if err != nil {
		return err
	}
	err = index.write(body, 0)
	for _, f := range append(files, index) {
		err = errors.Join(err, w.sync(f))
	}
	for _, f := range files {
		err = errors.Join(err, f.publish())
	}
	// The names of the data must be durable before the manifest's.
	if err = errors.Join(err, w.syncNames()); err == nil {
		err = errors.Join(index.publish(), w.syncNames())
	}
	if err != nil {
		index.discard()
		return err
	}
	w.index = index
	return nil
}

// finish brings every file to the length that the format wants.
func (w *Writer) finish() (files []*output, list []image.File, err error) {
	if err := w.state.flush(); err != nil {
		return nil, nil, err
	}
	end := w.stream.End().Append(nil)
	// Not counted in pos: further records would overwrite it.
	if err := w.state.file.write(end, w.state.pos); err != nil {
		return nil, nil, err
	}
	w.inline.Name, w.inline.Size = image.StateName, w.state.pos+int64(len(end))
	files, list = []*output{w.state.file}, []image.File{w.inline}
	for _, l := range w.opened {
		if err := l.file.Truncate(l.next); err != nil {
			return nil, nil, l.file.explain("truncate", 0, err)
		}
		l.counts.Name, l.counts.Size = l.file.name, l.next
		files, list = append(files, l.file), append(list, l.counts)
	}
	return files, list, nil
}

func (w *Writer) sync(f *output) error {
	if w.options.NoSync {
		return nil
	}
	if err := f.Sync(); err != nil {
		return f.explain("sync", 0, err)
	}
	return nil
}

// syncNames makes the directory's entries durable.
func (w *Writer) syncNames() error {
	if w.options.NoSync {
		return nil
	}
	return w.dir.Sync()
}

// Close ends the writing. Without a Flush after the last push everything that
// was written is removed, also the directory if Create made it.
func (w *Writer) Close() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.dir == nil {
		return medium.ErrClosed
	}
	whole := w.index != nil
	files := []*output{w.state.file}
	for _, l := range w.opened {
		files = append(files, l.file)
	}
	for _, f := range files {
		if whole {
			_ = f.File.Close()
		} else {
			f.discard()
		}
	}
	if whole {
		_ = w.index.Close()
		_ = w.dir.Close() // also gives the lock back
	} else {
		w.dir.abandon()
	}
	w.dir = nil
	if w.err == nil {
		w.err = medium.ErrClosed
	}
	return nil
}
