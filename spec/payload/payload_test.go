// SPDX-License-Identifier: Apache-2.0

package payload

import (
	"testing"
	"unsafe"
)

// TestPool: payloads begin at huge pages with their heads before them, nobody has
// a buffer that another one has, and what is given back is lent again.
func TestPool(t *testing.T) {
	for _, head := range []int{0, 16, 4 << 10} {
		p := NewPool(head, Huge)
		p.Warm(1)
		lent := [][]byte{p.Get(), p.Get(), p.Get()}
		for i, b := range lent {
			if len(b) != head+Huge || cap(b) != len(b) {
				t.Fatalf("%d bytes of %d, want %d", len(b), cap(b), head+Huge)
			}
			if at := uintptr(unsafe.Pointer(&b[head])); at%Huge != 0 {
				t.Errorf("a payload at %#x", at)
			}
			for j := range b {
				b[j] = byte(i + 1)
			}
		}
		for i, b := range lent {
			for j := range b {
				if b[j] != byte(i+1) {
					t.Fatalf("byte %d of buffer %d was written by another borrower", j, i)
				}
			}
		}
		p.Put(lent[1])
		if again := p.Get(); &again[0] != &lent[1][0] {
			t.Error("a buffer that was given back was not lent again")
		}
	}
}
