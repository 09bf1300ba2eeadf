// SPDX-License-Identifier: Apache-2.0

package mediumtest

import (
	"testing"

	"github.com/io-mig/mig/layers/medium"
)

// Wrapped runs the suite for a wrapper around a stored and around a live
// medium; plain makes each of them bare. A nil wrapping leaves its end bare.
func Wrapped(t *testing.T, plain map[string]func(*testing.T) *Target, wrapWriter, wrapReader func(medium.Medium) (medium.Medium, error)) {
	for name, bare := range plain {
		t.Run(name, func(t *testing.T) {
			Run(t, func(t *testing.T) *Target {
				target := bare(t)
				target.Writer = wrapped(target.Writer, wrapWriter)
				target.Reader = wrapped(target.Reader, wrapReader)
				return target
			})
		})
	}
}

func wrapped(open func() (medium.Medium, error), wrap func(medium.Medium) (medium.Medium, error)) func() (medium.Medium, error) {
	return func() (medium.Medium, error) {
		m, err := open()
		if err != nil {
			return nil, err
		}
		w, err := wrap(m)
		if err != nil {
			_ = m.Close()
			return nil, err
		}
		return w, nil
	}
}
