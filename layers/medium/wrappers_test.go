// SPDX-License-Identifier: Apache-2.0

package medium_test

import (
	"path/filepath"
	"testing"

	"filippo.io/age"
	"github.com/io-mig/mig/layers/medium"
	"github.com/io-mig/mig/layers/medium/directory"
	"github.com/io-mig/mig/layers/medium/encrypt"
	"github.com/io-mig/mig/layers/medium/fault"
	"github.com/io-mig/mig/layers/medium/limit"
	"github.com/io-mig/mig/layers/medium/mediumtest"
	"github.com/io-mig/mig/layers/medium/meter"
	"github.com/io-mig/mig/layers/medium/pipe"
)

// bare are the media that wrappers are tried on: a stored and a live one.
var bare = map[string]func(*testing.T) *mediumtest.Target{
	"directory": func(t *testing.T) *mediumtest.Target {
		path := filepath.Join(t.TempDir(), "image")
		return &mediumtest.Target{
			Writer: func() (medium.Medium, error) { return directory.Create(path, directory.Options{NoSync: true}) },
			Reader: func() (medium.Medium, error) { return directory.NewReader(path) },
			Files: func() []string {
				files, err := filepath.Glob(path + "/*")
				if err != nil {
					t.Fatal(err)
				}
				return files
			},
		}
	},
	"pipe": func(*testing.T) *mediumtest.Target {
		const bound = 1 << 20
		w, r := pipe.New(bound)
		return &mediumtest.Target{
			Writer: func() (medium.Medium, error) { return w, nil },
			Reader: func() (medium.Medium, error) { return r, nil },
			Live:   true, Bound: bound,
		}
	},
}

func TestMeterSuite(t *testing.T) {
	wrap := func(m medium.Medium) (medium.Medium, error) { return meter.New(m), nil }
	mediumtest.Wrapped(t, bare, wrap, wrap)
}

func TestLimitSuite(t *testing.T) {
	wrap := func(m medium.Medium) (medium.Medium, error) { return limit.New(m, 2<<30) }
	mediumtest.Wrapped(t, bare, wrap, wrap)
}

func TestFaultSuite(t *testing.T) {
	wrap := func(m medium.Medium) (medium.Medium, error) { return fault.New(m, fault.Plans{}), nil }
	mediumtest.Wrapped(t, bare, wrap, wrap)
}

func TestEncryptSuite(t *testing.T) {
	id, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	mediumtest.Wrapped(t, bare,
		func(m medium.Medium) (medium.Medium, error) { return encrypt.NewWriter(m, id.Recipient()) },
		func(m medium.Medium) (medium.Medium, error) { return encrypt.NewReader(m, id) })
}
