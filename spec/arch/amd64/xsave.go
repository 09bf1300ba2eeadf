// SPDX-License-Identifier: Apache-2.0

package amd64

import (
	"encoding/binary"
	"fmt"
	"math/bits"
)

// Offsets inside an XSAVE area in standard (not compacted) form, Intel SDM
// volume 1 chapter 13, plus the kernel's use of the software-reserved bytes
// (struct user_xstateregs, arch/x86/include/asm/user.h).
const (
	XSaveMXCSR      = 24  // MXCSR, 4 bytes
	XSaveFeatures   = 464 // software reserved: the kernel's mask of user features
	XSaveLegacySize = 512 // the FXSAVE image
	XSaveBV         = 512 // XSTATE_BV: components that are not in initial state
	XSaveCompBV     = 520 // XCOMP_BV: zero in standard form
	XSaveMinSize    = 576 // FXSAVE image plus header
	// XSaveMaxSize bounds what is accepted from an image: AMX, the largest
	// component today, ends below 12 KiB.
	XSaveMaxSize = 64 << 10
)

// Feature bits of XCR0 and XSTATE_BV.
const (
	FeatureX87      uint64 = 1 << 0
	FeatureSSE      uint64 = 1 << 1
	FeatureAVX      uint64 = 1 << 2
	FeaturePKRU     uint64 = 1 << 9
	FeatureTileCfg  uint64 = 1 << 17
	FeatureTileData uint64 = 1 << 18
	// FeatureDynamic are components a thread has room for only after it
	// asked (arch_prctl ARCH_REQ_XCOMP_PERM) and used them.
	FeatureDynamic = FeatureTileData
)

var featureNames = map[int]string{
	0: "x87", 1: "sse", 2: "avx", 3: "bndregs", 4: "bndcsr", 5: "avx512-opmask",
	6: "avx512-zmm-hi256", 7: "avx512-hi16-zmm", 9: "pkru", 17: "amx-tilecfg", 18: "amx-tiledata",
	19: "apx",
}

// FeatureNames lists the names of the bits set in mask.
func FeatureNames(mask uint64) []string {
	var names []string
	for ; mask != 0; mask &= mask - 1 {
		i := bits.TrailingZeros64(mask)
		name, ok := featureNames[i]
		if !ok {
			name = fmt.Sprintf("xfeature-%d", i)
		}
		names = append(names, name)
	}
	return names
}

// XComponent is one row of CPUID leaf 0xD: where a component of the
// standard-form area lies. Offsets differ between vendors.
type XComponent struct {
	Bit    int    // number of the feature bit
	Offset uint32 // bytes from the start of the area
	Size   uint32 // bytes
}

// XLayout is the XSAVE layout of a host: CPUID leaf 0xD as data.
type XLayout struct {
	Features   uint64       // XCR0: components the host's kernel enabled
	Components []XComponent // extended components (bit 2 and up) in ascending order
}

// Size returns the bytes needed for the components in mask.
func (l *XLayout) Size(mask uint64) int {
	size := XSaveMinSize
	for _, c := range l.Components {
		if mask&(1<<c.Bit) != 0 {
			size = max(size, int(c.Offset)+int(c.Size))
		}
	}
	return size
}

// Validate checks a layout of unknown origin against the limits of this
// package.
func (l *XLayout) Validate() error {
	prev := 1
	for _, c := range l.Components {
		switch {
		case c.Bit <= prev || c.Bit > 62:
			return fmt.Errorf("xsave layout: component %d out of order", c.Bit)
		case c.Offset < XSaveMinSize || c.Size > XSaveMaxSize || c.Offset > XSaveMaxSize-c.Size:
			return fmt.Errorf("xsave layout: component %d at %d+%d outside of %d..%d", c.Bit, c.Offset, c.Size, XSaveMinSize, XSaveMaxSize)
		}
		prev = c.Bit
	}
	return nil
}

// CheckXSave checks that x can be read as a standard-form XSAVE area and
// returns its XSTATE_BV.
func CheckXSave(x []byte) (bv uint64, err error) {
	switch {
	case len(x) < XSaveMinSize:
		return 0, fmt.Errorf("xsave area: %d bytes, want at least %d", len(x), XSaveMinSize)
	case len(x) > XSaveMaxSize:
		return 0, fmt.Errorf("xsave area: %d bytes exceed the limit of %d", len(x), XSaveMaxSize)
	case binary.LittleEndian.Uint64(x[XSaveCompBV:]) != 0:
		return 0, fmt.Errorf("xsave area: compacted form is not accepted")
	}
	return binary.LittleEndian.Uint64(x[XSaveBV:]), nil
}

// Repack moves area x, laid out as from says, into the layout of another
// host. Components in initial state are left out. It fails, naming them, if
// x uses components the destination lacks.
func Repack(x []byte, from, to *XLayout) ([]byte, error) {
	bv, err := CheckXSave(x)
	if err != nil {
		return nil, err
	}
	if missing := bv &^ to.Features; missing != 0 {
		return nil, fmt.Errorf("xsave area: the destination's CPU lacks %v", FeatureNames(missing))
	}
	out := make([]byte, to.Size(to.Features))
	copy(out, x[:XSaveMinSize])
	binary.LittleEndian.PutUint64(out[XSaveFeatures:], to.Features)
	for rest := bv &^ (FeatureX87 | FeatureSSE); rest != 0; rest &= rest - 1 {
		bit := bits.TrailingZeros64(rest)
		a, okA := from.component(bit)
		b, okB := to.component(bit)
		if !okA || !okB || a.Size != b.Size || int(a.Offset)+int(a.Size) > len(x) {
			return nil, fmt.Errorf("xsave area: component %v does not fit (source %d+%d of %d, destination %d+%d)",
				FeatureNames(1<<bit), a.Offset, a.Size, len(x), b.Offset, b.Size)
		}
		copy(out[b.Offset:b.Offset+b.Size], x[a.Offset:a.Offset+a.Size])
	}
	return out, nil
}

func (l *XLayout) component(bit int) (XComponent, bool) {
	for _, c := range l.Components {
		if c.Bit == bit {
			return c, true
		}
	}
	return XComponent{}, false
}
