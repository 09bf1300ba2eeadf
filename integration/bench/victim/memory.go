// SPDX-License-Identifier: Apache-2.0

package victim

import (
	"fmt"
	"io"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// PieceSize is what one call of process_vm_readv or process_vm_writev moves in
// the references: the 512 KiB of which the engine makes a record.
const PieceSize = 512 << 10

func read(pid int, at uintptr, buf []byte) error {
	return move("process_vm_readv", unix.ProcessVMReadv, pid, at, buf)
}

func write(pid int, at uintptr, buf []byte) error {
	return move("process_vm_writev", unix.ProcessVMWritev, pid, at, buf)
}

type call func(pid int, local []unix.Iovec, remote []unix.RemoteIovec, flags uint) (int, error)

func move(name string, call call, pid int, at uintptr, buf []byte) error {
	local := []unix.Iovec{{Base: &buf[0]}}
	local[0].SetLen(len(buf))
	n, err := call(pid, local, []unix.RemoteIovec{{Base: at, Len: len(buf)}}, 0)
	if err == nil && n != len(buf) {
		err = io.ErrShortWrite
	}
	if err != nil {
		return fmt.Errorf("%s of process %d at %#x: %w", name, pid, at, err)
	}
	return nil
}

// ReadAll reads the data with workers goroutines and throws it away: how fast
// process_vm_readv is alone.
func (v *Victim) ReadAll(workers int) (time.Duration, error) {
	return v.all(workers, read)
}

// WriteAll writes as many bytes as the data has to where the data is: how fast
// process_vm_writev is alone. Verify fails afterwards.
func (v *Victim) WriteAll(workers int) (time.Duration, error) {
	return v.all(workers, write)
}

// ReadInto reads the data into dest, which holds as many bytes.
func (v *Victim) ReadInto(workers int, dest []byte) (time.Duration, error) {
	size := v.Config.Bytes()
	started := time.Now()
	err := split(workers, size, func(_, from, to int) error {
		return read(v.Pid, dataAddress+uintptr(from), dest[from:to])
	})
	return time.Since(started), err
}

func (v *Victim) all(workers int, call func(int, uintptr, []byte) error) (time.Duration, error) {
	buffers := make([][]byte, workers)
	for i := range buffers {
		buffers[i] = make([]byte, PieceSize)
		for at := range buffers[i] {
			buffers[i][at] = byte(at*7 + at>>8) // touched, and not zero
		}
	}
	started := time.Now()
	err := split(workers, v.Config.Bytes(), func(worker, from, to int) error {
		return call(v.Pid, dataAddress+uintptr(from), buffers[worker][:to-from])
	})
	return time.Since(started), err
}

// split calls f for every piece of size bytes, from workers goroutines that
// have a contiguous part each.
func split(workers, size int, f func(worker, from, to int) error) error {
	errs := make(chan error, workers)
	var all sync.WaitGroup
	for w := range workers {
		all.Go(func() {
			end := size * (w + 1) / workers
			for from := size * w / workers; from < end; from += PieceSize {
				if err := f(w, from, min(from+PieceSize, end)); err != nil {
					errs <- err
					return
				}
			}
		})
	}
	all.Wait()
	close(errs)
	return <-errs
}
