// SPDX-License-Identifier: Apache-2.0

package engine

import (
	"os"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"github.com/io-mig/mig/layers/control"
	"github.com/io-mig/mig/layers/kernel/procfs"
)

// urgentNice is the niceness of an engine while a container stands still for it
// (setpriority(2)). It is for milliseconds, in which every other program's turn
// would be added to a silence.
const urgentNice = -20

// niceness of this process's threads.
var niceness struct {
	wanted  atomic.Int32
	setting sync.Mutex
}

// hurry gives all threads of this process a niceness, in the background. Those
// that are started later inherit it. Without the privilege nothing changes.
func hurry(nice int) {
	niceness.wanted.Store(int32(nice))
	go func() {
		niceness.setting.Lock() // whoever comes last sets what was wanted last
		defer niceness.setting.Unlock()
		nice := int(niceness.wanted.Load())
		hurryThreads(nice)
	}()
}

// hurryThreads looks again until it finds no thread that it has not seen: one may
// have been started by one whose turn had not come, and has what that had.
func hurryThreads(nice int) {
	seen := map[int]bool{}
	for more := true; more; {
		tids, err := procfs.Host().Process(os.Getpid()).Threads()
		if err != nil {
			return
		}
		more = false
		for _, tid := range tids {
			if !seen[tid] {
				seen[tid], more = true, true
				_ = unix.Setpriority(unix.PRIO_PROCESS, tid, nice)
			}
		}
	}
}

// hurrying is an observer that has the engine hurry from one state to another.
func hurrying(observe control.Observer, from, to control.State) control.Observer {
	var normal int
	var begun bool
	return func(t control.Transition) {
		if t.To == from && !begun {
			begun = true
			if raw, err := unix.Getpriority(unix.PRIO_PROCESS, 0); err == nil {
				normal = 20 - raw // as the system call returns it
			}
			hurry(urgentNice)
		}
		observe(t)
		if begun && (t.To == to || t.To.Final()) {
			begun = false
			hurry(normal)
		}
	}
}
