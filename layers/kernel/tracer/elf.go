// SPDX-License-Identifier: Apache-2.0

//go:build linux && amd64

package tracer

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// The frame program: what a container's init execs in place of the user's
// program, until the engine has turned it into the image's first task. It
// waits in pause(2), has no libc (so no rseq, no TLS, no threads) and holds
// the gadgets for remote calls.
const (
	// FrameBase is where the frame program is linked; it occupies one page.
	FrameBase  = 0x20000000000
	frameEntry = 64 + 2*56 // behind the ELF and program headers
)

// frameCode: wait: mov eax,34; syscall; jmp wait; then the stub.
var frameCode = append([]byte{0xb8, unix.SYS_PAUSE, 0, 0, 0, 0x0f, 0x05, 0xeb, 0xf7}, stubCode...)

// FrameELF returns the frame program, a static ELF of less than a page.
func FrameELF() []byte {
	const size = frameEntry + 32
	b := make([]byte, size)
	le := binary.LittleEndian
	copy(b, "\x7fELF\x02\x01\x01") // 64-bit, little-endian, version 1
	le.PutUint16(b[16:], 2)        // ET_EXEC
	le.PutUint16(b[18:], 62)       // EM_X86_64
	le.PutUint32(b[20:], 1)        // EV_CURRENT
	le.PutUint64(b[24:], FrameBase+frameEntry)
	le.PutUint64(b[32:], 64) // e_phoff
	le.PutUint16(b[52:], 64) // e_ehsize
	le.PutUint16(b[54:], 56) // e_phentsize
	le.PutUint16(b[56:], 2)  // e_phnum
	segment := func(i int, kind, flags uint32, addr, length uint64) {
		p := b[64+56*i:]
		le.PutUint32(p, kind)
		le.PutUint32(p[4:], flags)
		le.PutUint64(p[16:], addr)
		le.PutUint64(p[24:], addr)
		le.PutUint64(p[32:], length)
		le.PutUint64(p[40:], length)
		le.PutUint64(p[48:], pageSize)
	}
	const load, gnuStack, r, w, x = 1, 0x6474e551, 4, 2, 1
	segment(0, load, r|x, FrameBase, size)
	segment(1, gnuStack, r|w, 0, 0)
	copy(b[frameEntry:], frameCode)
	return b
}

// FrameFile returns FrameELF in a sealed, executable memfd, close-on-exec.
// The caller closes it.
func FrameFile() (*os.File, error) {
	flags := unix.MFD_CLOEXEC | unix.MFD_ALLOW_SEALING
	fd, err := unix.MemfdCreate("mig-frame", flags|unix.MFD_EXEC)
	if errors.Is(err, unix.EINVAL) { // before Linux 6.3 every memfd is executable
		fd, err = unix.MemfdCreate("mig-frame", flags)
	}
	if err != nil {
		return nil, fmt.Errorf("create the frame program's memfd: %w", err)
	}
	f := os.NewFile(uintptr(fd), "mig-frame")
	if _, err := f.Write(FrameELF()); err != nil {
		return nil, errors.Join(fmt.Errorf("write the frame program: %w", err), f.Close())
	}
	const seals = unix.F_SEAL_SEAL | unix.F_SEAL_SHRINK | unix.F_SEAL_GROW | unix.F_SEAL_WRITE
	if _, err := unix.FcntlInt(f.Fd(), unix.F_ADD_SEALS, seals); err != nil {
		return nil, errors.Join(fmt.Errorf("seal the frame program: %w", err), f.Close())
	}
	return f, nil
}
