// SPDX-License-Identifier: Apache-2.0

package engine

import (
	"os"
	"runtime"
	"runtime/debug"
	"strings"
	"sync"

	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"

	"github.com/io-mig/mig/layers/kernel/procfs"
	"github.com/io-mig/mig/spec/state"
)

// switchMemory is the heap, in bytes, up to which a move's engine collects no
// garbage: a collection in the switch would take a processor from it.
const switchMemory = 64 << 20

// brace makes an engine ready for a switch in which every step is done for the
// first time in its life. What a first time costs is paid here instead, beside
// the connecting, in the background.
func brace() {
	debug.SetGCPercent(-1)
	minMemory.Store(switchMemory)
	debug.SetMemoryLimit(switchMemory)
	go func() {
		populateProgram()
		prepareMessages()
		populateHeap()
		populateThreads()
	}()
}

// switchHeap is what a switch allocates, about, in bytes.
const switchHeap = 8 << 20

// populateHeap leaves the heap with free memory that was touched: fresh memory
// costs a page fault for each page.
func populateHeap() {
	const block = 16 << 10 // in which the runtime takes memory for small objects
	keep := make([][]byte, 0, switchHeap/block)
	for range cap(keep) {
		keep = append(keep, make([]byte, block))
	}
	for _, b := range keep {
		for at := 0; at < block; at += 4 << 10 {
			b[at] = 1
		}
	}
	runtime.KeepAlive(keep)
	runtime.GC()
}

// switchThreads is how many threads a switch occupies at the same time, about,
// beside those that wait for the network.
const switchThreads = 6

// populateThreads leaves the runtime with idle threads: to start one takes as long
// as many a step of the switch.
func populateThreads() {
	var all, started sync.WaitGroup
	started.Add(switchThreads)
	for range switchThreads {
		all.Go(func() {
			runtime.LockOSThread() // each needs one of its own
			defer runtime.UnlockOSThread()
			started.Done()
			started.Wait()
		})
	}
	all.Wait()
}

// prepareMessages encodes and decodes an empty message of each kind: the tables
// by which that is done are made at the first time, some 100 us for each kind.
func prepareMessages() {
	ours := state.File_spec_state_task_proto.Package()
	protoregistry.GlobalTypes.RangeMessages(func(t protoreflect.MessageType) bool {
		if t.Descriptor().ParentFile().Package() == ours {
			m := t.New().Interface()
			if b, err := proto.Marshal(m); err == nil {
				_ = proto.Unmarshal(b, m)
			}
		}
		return true
	})
}

// populateProgram maps the pages of this program that the page cache has, so that
// none of them has to be faulted in when it is first run (MADV_POPULATE_READ,
// Linux 5.14; without it they are faulted in).
func populateProgram() {
	exe, err := os.Readlink("/proc/self/exe")
	if err != nil {
		return
	}
	maps, err := procfs.Host().Process(os.Getpid()).Maps()
	if err != nil {
		return
	}
	for i := range maps {
		m := &maps[i]
		if strings.TrimSuffix(m.Path, " (deleted)") == strings.TrimSuffix(exe, " (deleted)") && m.Prot&unix.PROT_READ != 0 && m.Prot&unix.PROT_WRITE == 0 {
			_, _, _ = unix.Syscall(unix.SYS_MADVISE, uintptr(m.Start), uintptr(m.Len()), unix.MADV_POPULATE_READ)
		}
	}
}
