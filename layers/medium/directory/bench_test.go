// SPDX-License-Identifier: Apache-2.0

package directory

import (
	"bufio"
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
	"time"
	"unsafe"

	"github.com/io-mig/mig/layers/medium/mediumtest"
	"github.com/io-mig/mig/spec/record"
	"golang.org/x/sys/unix"
)

// The benchmarks move the memory of another process, as a checkpoint does:
//
//	go test -run - -bench . ./layers/medium/directory
//
// Each moves benchSize bytes with benchWorkers workers, in records of the size
// in the name. On a virtual machine the first touch of a page may cost more
// than everything else: every benchmark moves the whole once before it times.
const (
	benchSize    = 512 << 20
	benchWorkers = 2
	victimEnv    = "MIG_BENCH_VICTIM"
)

func TestMain(m *testing.M) {
	if os.Getenv(victimEnv) != "" {
		victim()
	}
	os.Exit(m.Run())
}

// victim is the process whose memory is moved: it prints the address of
// benchSize touched bytes and waits for its input to end.
func victim() {
	b, err := unix.Mmap(-1, 0, benchSize, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
	if err != nil {
		panic(err)
	}
	for i := 0; i < len(b); i += 8 {
		binary.LittleEndian.PutUint64(b[i:], uint64(i)*0x9e3779b97f4a7c15)
	}
	fmt.Println(uintptr(unsafe.Pointer(&b[0])))
	_, _ = io.Copy(io.Discard, os.Stdin)
	os.Exit(0)
}

func startVictim(b *testing.B) (pid int, addr uintptr) {
	b.Helper()
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), victimEnv+"=1")
	in, err := cmd.StdinPipe()
	if err != nil {
		b.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		b.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { in.Close(); _ = cmd.Wait() })
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		b.Fatal(err)
	}
	if _, err := fmt.Sscan(line, &addr); err != nil {
		b.Fatal(err)
	}
	return cmd.Process.Pid, addr
}

// workers calls f for every piece of size bytes, from benchWorkers goroutines
// with a buffer each.
func workers(size int, f func(worker, offset int, buf []byte) error) error {
	errs := make(chan error, benchWorkers)
	var all sync.WaitGroup
	for w := range benchWorkers {
		all.Go(func() {
			buf := make([]byte, size)
			part := benchSize / benchWorkers
			for at := w * part; at < (w+1)*part; at += size {
				if err := f(w, at, buf); err != nil {
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

func readMemory(pid int, addr uintptr, buf []byte) error {
	local := []unix.Iovec{{Base: &buf[0]}}
	local[0].SetLen(len(buf))
	n, err := unix.ProcessVMReadv(pid, local, []unix.RemoteIovec{{Base: addr, Len: len(buf)}}, 0)
	if err == nil && n != len(buf) {
		err = io.ErrShortWrite
	}
	return err
}

// repeat runs f once untimed, then b.N times, and reports the best time too:
// on a shared machine it says more than the mean. What f returns is called
// outside of the time: giving memory back costs as much as half a write.
func repeat(b *testing.B, f func() (cleanup func() error, err error)) {
	b.Helper()
	best := time.Duration(1 << 62)
	run := func() time.Duration {
		start := time.Now()
		cleanup, err := f()
		took := time.Since(start)
		b.StopTimer()
		if err == nil && cleanup != nil {
			err = cleanup()
		}
		if err != nil {
			b.Fatal(err)
		}
		b.StartTimer()
		return took
	}
	run()
	b.SetBytes(benchSize)
	for b.Loop() {
		best = min(best, run())
	}
	b.ReportMetric(benchSize/best.Seconds()/1e6, "best-MB/s")
}

// place is a directory below MIG_BENCH_DIR, or on tmpfs if there is one.
func place(b *testing.B) string {
	if dir, err := os.MkdirTemp(cmp.Or(os.Getenv("MIG_BENCH_DIR"), "/dev/shm"), "mig-bench-"); err == nil {
		b.Cleanup(func() { os.RemoveAll(dir) })
		return dir
	}
	return b.TempDir()
}

func sizes(b *testing.B, run func(b *testing.B, size int)) {
	for _, size := range []int{64 << 10, 256 << 10, 1 << 20} {
		b.Run(fmt.Sprintf("%dKiB", size>>10), func(b *testing.B) { run(b, size) })
	}
}

// BenchmarkReadv is process_vm_readv alone: what the rest is measured by.
func BenchmarkReadv(b *testing.B) {
	pid, addr := startVictim(b)
	sizes(b, func(b *testing.B, size int) {
		repeat(b, func() (func() error, error) {
			return nil, workers(size, func(_, at int, buf []byte) error { return readMemory(pid, addr+uintptr(at), buf) })
		})
	})
}

// BenchmarkReadvWhole is process_vm_readv into memory that holds everything,
// as a checkpoint in memory would.
func BenchmarkReadvWhole(b *testing.B) {
	pid, addr := startVictim(b)
	repeat(b, func() (func() error, error) {
		whole, err := unix.Mmap(-1, 0, benchSize, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
		if err != nil {
			return nil, err
		}
		return func() error { return unix.Munmap(whole) }, workers(256<<10, func(_, at int, buf []byte) error {
			return readMemory(pid, addr+uintptr(at), whole[at:at+len(buf)])
		})
	})
}

// BenchmarkPwrite is pwrite(2) alone, a file for each worker.
func BenchmarkPwrite(b *testing.B) {
	sizes(b, func(b *testing.B, size int) {
		dir := place(b)
		repeat(b, func() (func() error, error) {
			var files [benchWorkers]*os.File
			for i := range files {
				f, err := os.CreateTemp(dir, "")
				if err != nil {
					return nil, err
				}
				if err := os.Remove(f.Name()); err != nil {
					return nil, err
				}
				files[i] = f
			}
			return func() error { return errors.Join(files[0].Close(), files[1].Close()) }, workers(size, func(w, at int, buf []byte) error {
				_, err := files[w].WriteAt(buf, int64(at%(benchSize/benchWorkers)))
				return err
			})
		})
	})
}

// BenchmarkPush is the medium alone: sealed records into an image.
func BenchmarkPush(b *testing.B) {
	sizes(b, func(b *testing.B, size int) {
		dir := filepath.Join(place(b), "image")
		repeat(b, func() (func() error, error) {
			return writeImage(dir, size, func(_ int, r *record.Record) error { return nil })
		})
	})
}

// BenchmarkCheckpoint is all of it: read, checksum, write.
func BenchmarkCheckpoint(b *testing.B) {
	pid, addr := startVictim(b)
	sizes(b, func(b *testing.B, size int) {
		dir := filepath.Join(place(b), "image")
		repeat(b, func() (func() error, error) {
			return writeImage(dir, size, func(at int, r *record.Record) error {
				if err := readMemory(pid, addr+uintptr(at), r.Payload); err != nil {
					return err
				}
				return r.Seal()
			})
		})
	})
}

// BenchmarkSeal is the checksum alone.
func BenchmarkSeal(b *testing.B) {
	repeat(b, func() (func() error, error) {
		return nil, workers(256<<10, func(_, _ int, buf []byte) error {
			r := record.Record{Header: record.Header{Subsystem: "memory", Kind: 1}, Payload: buf}
			return r.Seal()
		})
	})
}

// BenchmarkPop reads an image, without checking the checksums.
func BenchmarkPop(b *testing.B) {
	sizes(b, func(b *testing.B, size int) {
		dir := filepath.Join(place(b), "image")
		w, err := fillImage(dir, size, func(int, *record.Record) error { return nil })
		if err != nil {
			b.Fatal(err)
		}
		if err := w.Close(); err != nil {
			b.Fatal(err)
		}
		repeat(b, func() (func() error, error) {
			r, err := NewReader(dir)
			if err != nil {
				return nil, err
			}
			return r.Close, workers(benchSize/benchWorkers, func(int, int, []byte) error {
				for {
					_, release, err := r.PopData(context.Background())
					if err == io.EOF {
						return nil
					}
					if err != nil {
						return err
					}
					release()
				}
			})
		})
	})
}

// writeImage writes an image; the cleanup removes it.
func writeImage(dir string, size int, fill func(at int, r *record.Record) error) (func() error, error) {
	w, err := fillImage(dir, size, fill)
	if err != nil {
		return nil, err
	}
	return func() error { return errors.Join(w.Close(), os.RemoveAll(dir)) }, nil
}

func fillImage(dir string, size int, fill func(at int, r *record.Record) error) (*Writer, error) {
	w, err := Create(dir, Options{})
	if err != nil {
		return nil, err
	}
	body, err := mediumtest.Manifest().Marshal()
	if err != nil {
		return nil, err
	}
	ctx := context.Background()
	if _, err := w.Command(ctx, record.Command{Verb: "manifest", Body: body}); err != nil {
		return nil, err
	}
	err = workers(size, func(_, at int, buf []byte) error {
		r := &record.Record{Header: record.Header{Subsystem: "memory", Process: 1, Entity: uint64(at), Kind: 1}, Payload: buf}
		if err := fill(at, r); err != nil {
			return err
		}
		return w.PushData(ctx, r)
	})
	if err != nil {
		return nil, err
	}
	return w, w.Flush(ctx)
}
