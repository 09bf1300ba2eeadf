// SPDX-License-Identifier: Apache-2.0

package pipe

import (
	"testing"

	"github.com/io-mig/mig/layers/medium"
	"github.com/io-mig/mig/layers/medium/mediumtest"
)

func TestSuite(t *testing.T) {
	mediumtest.Run(t, func(*testing.T) *mediumtest.Target {
		const bound = 1 << 20
		w, r := New(bound)
		return &mediumtest.Target{
			Writer: func() (medium.Medium, error) { return w, nil },
			Reader: func() (medium.Medium, error) { return r, nil },
			Live:   true, Bound: bound,
		}
	})
}
