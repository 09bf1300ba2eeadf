// SPDX-License-Identifier: Apache-2.0

package directory

import (
	"path/filepath"
	"testing"

	"github.com/io-mig/mig/layers/medium"
	"github.com/io-mig/mig/layers/medium/mediumtest"
)

func TestSuite(t *testing.T) { suite(t, false) }

// TestSuiteNamed is the suite as on a file system without O_TMPFILE.
func TestSuiteNamed(t *testing.T) { suite(t, true) }

func suite(t *testing.T, named bool) {
	mediumtest.Run(t, func(t *testing.T) *mediumtest.Target {
		path := filepath.Join(t.TempDir(), "image")
		return &mediumtest.Target{
			Writer: func() (medium.Medium, error) { return create(path, Options{}, named) },
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
