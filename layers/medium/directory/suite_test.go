// SPDX-License-Identifier: Apache-2.0

package directory

import (
	"path/filepath"
	"testing"

	"github.com/io-mig/mig/layers/medium"
	"github.com/io-mig/mig/layers/medium/mediumtest"
)

func TestSuite(t *testing.T) {
	mediumtest.Run(t, func(t *testing.T) *mediumtest.Target {
		path := filepath.Join(t.TempDir(), "image")
		return &mediumtest.Target{
			Writer: func() (medium.Medium, error) { return Create(path, Options{}) },
			Reader: func() (medium.Medium, error) { return NewReader(path) },
			Files: func() []string {
				files, err := filepath.Glob(path + "/*")
				if err != nil {
					t.Fatal(err)
				}
				return files
			},
		}
	})
}
