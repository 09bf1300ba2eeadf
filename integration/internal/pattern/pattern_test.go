// SPDX-License-Identifier: Apache-2.0

package pattern

import (
	"io"
	"math/rand/v2"
	"testing"
)

// TestParts: the stream is the same in whatever parts it is read, and a wrong byte is
// found.
func TestParts(t *testing.T) {
	var s Stream
	var c Checker
	for range 1000 {
		b := make([]byte, rand.N(50))
		if _, err := io.ReadFull(&s, b); err != nil {
			t.Fatal(err)
		}
		for len(b) > 0 {
			n := rand.N(len(b)) + 1
			if _, err := c.Write(b[:n]); err != nil {
				t.Fatal(err)
			}
			b = b[n:]
		}
	}
	b := make([]byte, 9)
	_, _ = s.Read(b)
	b[5]++
	if n, err := c.Write(b); n != 5 || err == nil {
		t.Errorf("the wrong byte is found at %d: %v", n, err)
	}
}
