// SPDX-License-Identifier: Apache-2.0

//go:build linux

package kerneltest_test

import (
	"bytes"
	"crypto/sha256"
	"debug/elf"
	"path/filepath"
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/io-mig/mig/layers/kernel/kerneltest"
	"github.com/io-mig/mig/layers/kernel/memory"
	"github.com/io-mig/mig/spec/state"
)

// anotherKernel makes an image one of a kernel with another vDSO: its functions
// are traps, which nobody must run into.
func anotherKernel(t *testing.T, image *kerneltest.Image) {
	t.Helper()
	for _, r := range image.Records {
		if r.Subsystem != memory.Name || r.Kind != memory.KindAddressSpace {
			continue
		}
		var m state.AddressSpace
		if err := proto.Unmarshal(r.Payload, &m); err != nil {
			t.Fatal(err)
		}
		f, err := elf.NewFile(bytes.NewReader(m.VdsoCode))
		if err != nil {
			t.Fatalf("the vDSO in the image: %v", err)
		}
		list, err := f.DynamicSymbols()
		if err != nil {
			t.Fatal(err)
		}
		for _, s := range list {
			if elf.ST_TYPE(s.Info) == elf.STT_FUNC {
				for i := range s.Size {
					m.VdsoCode[s.Value+i] = 0xcc // int3
				}
			}
		}
		sum := sha256.Sum256(m.VdsoCode)
		m.VdsoSha256 = sum[:]
		if r.Payload, err = proto.Marshal(&m); err != nil {
			t.Fatal(err)
		}
		if err := r.Seal(); err != nil {
			t.Fatal(err)
		}
	}
}

// TestAnotherVDSO: a program that knows another kernel's vDSO goes on with this
// one's, also through a further generation.
func TestAnotherVDSO(t *testing.T) {
	for name, dynamic := range map[string]bool{"static": false, "dynamic": true} {
		t.Run(name, func(t *testing.T) {
			c := kerneltest.Start(t, kerneltest.Program{Source: "testdata/memory.c", Args: []string{filepath.Join(t.TempDir(), "file")}, Dynamic: dynamic})
			c.Verify()
			for range 3 {
				image, err := c.Export(false, base...)
				if err != nil {
					t.Fatal(err)
				}
				c.Stop()
				anotherKernel(t, image)
				if c, err = c.Import(image, base...); err != nil {
					t.Fatal(err)
				}
				c.Verify()
				if c, err = c.Next(base...); err != nil {
					t.Fatal(err)
				}
				c.Verify()
			}
		})
	}
}
