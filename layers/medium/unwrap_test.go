// SPDX-License-Identifier: Apache-2.0

package medium_test

import (
	"testing"

	"github.com/io-mig/mig/layers/medium"
	"github.com/io-mig/mig/layers/medium/limit"
	"github.com/io-mig/mig/layers/medium/meter"
)

type inner struct{ medium.Medium }

func TestAsLooksInside(t *testing.T) {
	in := &inner{}
	limited, err := limit.New(in, 1)
	if err != nil {
		t.Fatal(err)
	}
	if got, ok := medium.As[*inner](medium.Medium(meter.New(limited))); !ok || got != in {
		t.Errorf("%v %v", got, ok)
	}
	if _, ok := medium.As[*limit.Limiter](medium.Medium(in)); ok {
		t.Error("what is not there was found")
	}
}
