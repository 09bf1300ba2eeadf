// SPDX-License-Identifier: Apache-2.0

package memory

import (
	"bytes"
	"encoding/binary"
	"slices"
	"testing"

	"github.com/io-mig/mig/layers/kernel/tracer"
	"github.com/io-mig/mig/spec/state"
)

// own is the vDSO of the kernel that runs the test.
func own(t testing.TB) []byte {
	t.Helper()
	code := ownVDSO()
	if code == nil {
		t.Skip("this kernel gives programs no vDSO")
	}
	return slices.Clone(code)
}

// moved is the same vDSO with every function n bytes further on, as another
// build of the kernel has it: the symbols say so, and the code is not looked at.
func moved(t testing.TB, code []byte, n uint64) []byte {
	t.Helper()
	list, err := functions(code)
	if err != nil {
		t.Fatal(err)
	}
	out := slices.Clone(code)
	for _, f := range list {
		was := binary.LittleEndian.AppendUint64(nil, f.offset)
		is := binary.LittleEndian.AppendUint64(nil, f.offset+n)
		for at := 0; ; at += 8 { // st_value is aligned
			i := bytes.Index(out[at:], append(was, binary.LittleEndian.AppendUint64(nil, f.size)...))
			if i < 0 {
				break
			}
			at += i
			copy(out[at:], is)
		}
	}
	return out
}

func TestRedirect(t *testing.T) {
	code := own(t)
	ours, err := functions(code)
	if err != nil {
		t.Fatal(err)
	}
	if len(ours) < 5 {
		t.Fatalf("this kernel's vDSO has %v", ours)
	}
	const shift, base = 64, 0x7f1234560000
	old := moved(t, code, shift)
	got, err := redirect(old, &kernelVDSO{code: code, start: base})
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range ours {
		b := got[f.offset+shift:]
		if f.name == "getrandom" {
			if !bytes.Equal(b[:syscallSize], []byte{0xb8, 0x3e, 0x01, 0, 0, 0x0f, 0x05, 0xc3}) {
				t.Errorf("getrandom is %x", b[:syscallSize])
			}
			continue
		}
		want := append([]byte{0x48, 0xb8}, binary.LittleEndian.AppendUint64(nil, base+f.offset)...)
		if want = append(want, 0xff, 0xe0); !bytes.Equal(b[:jumpSize], want) {
			t.Errorf("%s is %x, want %x", f.name, b[:jumpSize], want)
		}
	}
}

// What this kernel's vDSO lacks is done by system calls.
func TestFallback(t *testing.T) {
	if b, err := entry("clock_gettime", 0); err != nil || !bytes.Equal(b, []byte{0xb8, 0xe4, 0, 0, 0, 0x0f, 0x05, 0xc3}) {
		t.Errorf("clock_gettime is %x, %v", b, err)
	}
	if _, err := entry("something_new", 0); err == nil {
		t.Error("a function that nobody knows was replaced")
	}
}

func TestRoomFor(t *testing.T) {
	const size = 0x8000
	stack := &state.Mapping{Start: 0x7ffd00000000, Length: 0x20000, GrowsDown: true}
	avoid := []tracer.Range{{Start: 0x400000, End: 0x500000}, {Start: 0x7f0000000000, End: 0x7f0000100000}, {Start: stack.Start, End: userEnd}}
	at, ok := roomFor(avoid, []*state.Mapping{stack}, size)
	if !ok || at+size+roomMargin != 0x7f0000000000 {
		t.Errorf("%#x %v: below the stack is no room", at, ok)
	}
	if _, ok := roomFor([]tracer.Range{{Start: pageSize, End: userEnd}}, nil, size); ok {
		t.Error("room in a full address space")
	}
}

func FuzzRedirect(f *testing.F) {
	code := own(f)
	f.Add(code)
	f.Add(code[:4096])
	f.Fuzz(func(t *testing.T, old []byte) {
		got, err := redirect(old, &kernelVDSO{code: code, start: 0x7f0000000000})
		if err == nil && len(got) != len(old) {
			t.Fatalf("%d bytes of %d", len(got), len(old))
		}
	})
}
