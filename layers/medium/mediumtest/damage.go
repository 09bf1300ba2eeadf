// SPDX-License-Identifier: Apache-2.0

package mediumtest

import (
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"testing"

	"github.com/io-mig/mig/spec/record"
)

// writeSample writes a stream with small and large records and closes it.
func writeSample(t *testing.T, target *Target) []*record.Record {
	t.Helper()
	var list []*record.Record
	for i := range 24 {
		list = append(list, Record(i, []int{30, 5000, 65_536, 70_001}[i%4]))
	}
	w := begin(t, target)
	if err := errors.Join(pushAll(t.Context(), list)(w), w.Flush(t.Context()), w.Close()); err != nil {
		t.Fatal(err)
	}
	return list
}

// judge reads the damaged stream. It must end in an error, or, where the
// damage hit a byte that means nothing (padding), give exactly what was written.
func judge(t *testing.T, target *Target, want []*record.Record) (noticed bool) {
	t.Helper()
	r, err := target.Reader()
	if err != nil {
		return true
	}
	defer r.Close()
	got, err := readAll(t.Context(), r)
	if err != io.EOF {
		if errors.Is(err, io.EOF) {
			t.Errorf("an error that wraps EOF for a damaged stream: %v", err)
		}
		return true
	}
	if err := equal(got, want); err != nil {
		t.Errorf("damage passed unnoticed: %v", err)
	}
	return false
}

func testTruncation(t *testing.T, target *Target) {
	want := writeSample(t, target)
	for _, name := range target.Files() {
		whole, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		for _, n := range []int{0, 1, 15, 16, 17, 95, 96, 4095, 4096, len(whole) / 2, len(whole) - 81, len(whole) - 80, len(whole) - 1} {
			if n < 0 || n >= len(whole) {
				continue
			}
			must(t, os.WriteFile(name, whole[:n], 0o600))
			if !judge(t, target, want) {
				t.Errorf("%s cut from %d to %d bytes: not noticed", name, len(whole), n)
			}
		}
		must(t, os.WriteFile(name, append(whole[:len(whole):len(whole)], make([]byte, 80)...), 0o600))
		if !judge(t, target, want) {
			t.Errorf("%s with 80 more bytes: not noticed", name)
		}
		must(t, os.Remove(name))
		if !judge(t, target, want) {
			t.Errorf("%s removed: not noticed", name)
		}
		must(t, os.WriteFile(name, whole, 0o600))
	}
	if judge(t, target, want) {
		t.Error("the undamaged stream no longer reads: the test itself is wrong")
	}
}

func testCorruption(t *testing.T, target *Target) {
	want := writeSample(t, target)
	random := rand.New(rand.NewPCG(1, 2))
	for _, name := range target.Files() {
		whole, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		places := []int{0, 4, 6, 8, 10, 12, 16, 20, len(whole) - 1, len(whole) - 60}
		for range 60 {
			places = append(places, random.IntN(len(whole)))
		}
		noticed := 0
		for _, at := range places {
			at = max(0, min(at, len(whole)-1))
			bit := byte(1) << random.IntN(8)
			whole[at] ^= bit
			must(t, os.WriteFile(name, whole, 0o600))
			if judge(t, target, want) {
				noticed++
			}
			whole[at] ^= bit
		}
		must(t, os.WriteFile(name, whole, 0o600))
		// Padding of pages files means nothing; all else does.
		if noticed < len(places)/2 {
			t.Error(fmt.Errorf("%s: only %d of %d flipped bits were noticed", name, noticed, len(places)))
		}
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
