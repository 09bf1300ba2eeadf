// SPDX-License-Identifier: Apache-2.0

package directory

import (
	"errors"
	"io/fs"
)

// Clear removes what a writer that was killed in the middle of its Flush has
// left in a directory: files of an image without a manifest. A whole image, a
// directory in which somebody writes, and files of others stay. A directory
// that does not exist is clear.
func Clear(path string) error {
	d, err := openFolder(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer d.Close()
	if err := d.lock(); err != nil {
		return nil // its writer lives and sees to it
	}
	if err := d.sweep(); err != nil && !errors.Is(err, ErrExists) {
		return err
	}
	return nil
}
