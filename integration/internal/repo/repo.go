// SPDX-License-Identifier: Apache-2.0

// Package repo finds the files of a checkout that tests run: the binaries
// under test and the pinned tools.
package repo

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// Tree is a checkout of mig whose `make build tools` has run.
type Tree struct {
	root string
}

// Find walks up from the working directory to the checkout. It fails where
// there is none above, or where the binaries or the tools are not built yet.
func Find() (Tree, error) {
	dir, err := os.Getwd()
	if err != nil {
		return Tree{}, err
	}
	for ; ; dir = filepath.Dir(dir) {
		_, err := os.Stat(filepath.Join(dir, "integration", "go.mod"))
		if err == nil {
			break
		}
		if !errors.Is(err, fs.ErrNotExist) {
			return Tree{}, err
		}
		if dir == filepath.Dir(dir) {
			return Tree{}, errors.New("no checkout of mig above the working directory")
		}
	}
	tree := Tree{root: dir}
	if _, err := os.Stat(tree.Tool("ctr")); err != nil {
		return Tree{}, fmt.Errorf("the pinned tools are not built (run make tools): %w", err)
	}
	return tree, nil
}

// Root returns the top directory of the checkout.
func (t Tree) Root() string { return t.root }

// Bin returns the path of a binary of this project. It need not exist.
func (t Tree) Bin(name string) string { return filepath.Join(t.root, "bin", name) }

// Tool returns the path of a pinned tool.
func (t Tree) Tool(name string) string {
	return filepath.Join(t.root, "integration", ".cache", "bin", name)
}
