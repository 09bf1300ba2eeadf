// SPDX-License-Identifier: Apache-2.0

package memory

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"

	"golang.org/x/sys/unix"
)

// jumpSize is the length of movabs $addr,%rax; jmp *%rax.
const jumpSize = 12

// syscallSize is the length of mov $nr,%eax; syscall; ret.
const syscallSize = 8

// fallbacks are the system calls that stand behind the functions (vdso(7)): what
// the running kernel's vDSO lacks is done by them. Of getrandom the state, which
// the caller keeps, has a format of the kernel's own (vgetrandom): with another
// kernel it is always the system call.
var fallbacks = map[string]uint32{
	"gettimeofday": unix.SYS_GETTIMEOFDAY, "clock_gettime": unix.SYS_CLOCK_GETTIME, "time": unix.SYS_TIME,
	"clock_getres": unix.SYS_CLOCK_GETRES, "getcpu": unix.SYS_GETCPU, "getrandom": unix.SYS_GETRANDOM,
}

// function is an entry of a vDSO.
type function struct {
	name   string // without __vdso_
	offset uint64
	size   uint64
}

// functions lists the entries of a vDSO, each address once, in ascending order.
// The code may be that of an image.
func functions(code []byte) ([]function, error) {
	f, err := elf.NewFile(bytes.NewReader(code))
	if err != nil {
		return nil, err
	}
	if f.Class != elf.ELFCLASS64 || f.Machine != elf.EM_X86_64 {
		return nil, fmt.Errorf("it is of class %v for %v", f.Class, f.Machine)
	}
	symbols, err := f.DynamicSymbols()
	if err != nil {
		return nil, err
	}
	base := uint64(0)
	for _, p := range f.Progs {
		if p.Type == elf.PT_LOAD {
			base = p.Vaddr - p.Off
			break
		}
	}
	var out []function
	for _, s := range symbols {
		if elf.ST_TYPE(s.Info) != elf.STT_FUNC || s.Section == elf.SHN_UNDEF {
			continue
		}
		at := s.Value - base
		if at >= uint64(len(code)) || s.Size > uint64(len(code))-at {
			return nil, fmt.Errorf("function %q lies outside of it", s.Name)
		}
		name, known := bytes.CutPrefix([]byte(s.Name), []byte("__vdso_"))
		if !known {
			name = []byte(s.Name)
		}
		out = append(out, function{string(name), at, s.Size})
	}
	slices.SortFunc(out, func(a, b function) int {
		if a.offset < b.offset {
			return -1
		}
		return 1
	})
	return slices.CompactFunc(out, func(a, b function) bool { return a.offset == b.offset }), nil
}

// redirect returns the code of an image's vDSO with every function replaced by a
// jump to that of the running kernel's, or by its system call.
func redirect(old []byte, k *kernelVDSO) ([]byte, error) {
	theirs, err := functions(old)
	if err != nil {
		return nil, fmt.Errorf("the image's: %w", err)
	}
	ours, err := functions(k.code)
	if err != nil {
		return nil, fmt.Errorf("this kernel's: %w", err)
	}
	at := map[string]uint64{}
	for _, f := range ours {
		at[f.name] = k.start + f.offset
	}
	code := slices.Clone(old)
	for i, f := range theirs {
		room := f.size
		if i+1 < len(theirs) {
			room = min(room, theirs[i+1].offset-f.offset)
		}
		patch, err := entry(f.name, at[f.name])
		if err == nil && uint64(len(patch)) > room {
			err = fmt.Errorf("it has %d bytes, a jump needs %d", room, len(patch))
		}
		if err != nil {
			return nil, fmt.Errorf("function %s: %w", f.name, err)
		}
		copy(code[f.offset:], patch)
	}
	return code, nil
}

// entry is what a function is replaced by.
func entry(name string, to uint64) ([]byte, error) {
	nr, call := fallbacks[name]
	switch {
	case to != 0 && name != "getrandom":
		b := append(make([]byte, 0, jumpSize), 0x48, 0xb8)
		b = binary.LittleEndian.AppendUint64(b, to)
		return append(b, 0xff, 0xe0), nil
	case call:
		b := append(make([]byte, 0, syscallSize), 0xb8)
		b = binary.LittleEndian.AppendUint32(b, nr)
		return append(b, 0x0f, 0x05, 0xc3), nil
	}
	if name == "sgx_enter_enclave" { // mov $-ENOSYS,%eax; ret
		return []byte{0xb8, 0xda, 0xff, 0xff, 0xff, 0xc3}, nil
	}
	return nil, errors.New("this kernel's vDSO does not have it, and no system call stands behind it")
}
