// SPDX-License-Identifier: Apache-2.0

package amd64

import (
	"bytes"
	"encoding/binary"
	"strings"
	"testing"
	"unsafe"
)

func TestRegistersMatchKernelLayout(t *testing.T) {
	var r Registers
	if s := unsafe.Sizeof(r); s != RegistersSize {
		t.Fatalf("size %d, want %d", s, RegistersSize)
	}
	for i, f := range r.fields() {
		*f = uint64(i + 1)
	}
	b, err := r.MarshalBinary()
	if err != nil {
		t.Fatal(err)
	}
	// Offsets of struct user_regs_struct, in 8-byte words.
	for word, got := range map[int]uint64{4: r.Rbp, 10: r.Rax, 15: r.OrigRax, 16: r.Rip, 17: r.Cs, 19: r.Rsp, 21: r.FsBase, 26: r.Gs} {
		if v := binary.LittleEndian.Uint64(b[8*word:]); v != got {
			t.Errorf("word %d is %d, want %d", word, v, got)
		}
	}
	var q Registers
	if err := q.UnmarshalBinary(b); err != nil || q != r {
		t.Fatalf("round trip: %v %+v", err, q)
	}
	if q.UnmarshalBinary(b[1:]) == nil {
		t.Fatal("a short buffer was accepted")
	}
}

func area(size int, bv uint64) []byte {
	x := make([]byte, size)
	for i := range x {
		x[i] = byte(i * 7)
	}
	binary.LittleEndian.PutUint64(x[XSaveBV:], bv)
	binary.LittleEndian.PutUint64(x[XSaveCompBV:], 0)
	return x
}

func TestRepackMovesComponents(t *testing.T) {
	intel := &XLayout{Features: 0x207, Components: []XComponent{{2, 576, 256}, {9, 2688, 8}}}
	amd := &XLayout{Features: 0x207, Components: []XComponent{{2, 576, 256}, {9, 2432, 8}}}
	x := area(intel.Size(intel.Features), 0x207)
	y, err := Repack(x, intel, amd)
	if err != nil {
		t.Fatal(err)
	}
	if len(y) != 2440 || !bytes.Equal(y[2432:2440], x[2688:2696]) || !bytes.Equal(y[576:832], x[576:832]) || !bytes.Equal(y[:464], x[:464]) {
		t.Fatal("components were not moved")
	}
	back, err := Repack(y, amd, intel)
	if err != nil || !bytes.Equal(back[2688:2696], x[2688:2696]) {
		t.Fatal("not reversible", err)
	}
}

func TestRepackNamesMissingFeatures(t *testing.T) {
	from := &XLayout{Features: 0xe7, Components: []XComponent{{2, 576, 256}, {5, 1088, 64}, {6, 1152, 512}, {7, 1664, 1024}}}
	to := &XLayout{Features: 7, Components: from.Components[:1]}
	_, err := Repack(area(2688, 0xe7), from, to)
	if err == nil || !strings.Contains(err.Error(), "avx512-opmask") {
		t.Fatal(err)
	}
	if _, err := Repack(area(2688, 7), from, to); err != nil {
		t.Fatal("unused features must not matter:", err)
	}
	if _, err := Repack(area(700, 7), from, to); err == nil {
		t.Fatal("a truncated component was accepted")
	}
}

func TestValidateLayout(t *testing.T) {
	for _, bad := range []XLayout{
		{Components: []XComponent{{2, 100, 8}}},
		{Components: []XComponent{{3, 576, 8}, {2, 600, 8}}},
		{Components: []XComponent{{2, 0xfffffff0, 0x20}}},
	} {
		if bad.Validate() == nil {
			t.Errorf("%+v was accepted", bad)
		}
	}
	if _, err := CheckXSave(make([]byte, 100)); err == nil {
		t.Error("short area accepted")
	}
}
