// SPDX-License-Identifier: Apache-2.0

package variants

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"os"
	"slices"
	"time"
)

// The account of testdata/witness.c.
const (
	accountAt    = 0x200000000000
	accountMagic = 0x7373656e746977
	workers      = 3
)

// account is the witness's own account of itself.
type account struct {
	Magic, Beats, Errors uint64
	Threads              [workers]uint64
	Wrong                [1024]byte
}

// read takes the account out of the witness's memory: it works for a paused
// container, and needs nothing of the container's own.
func (b *box) read() (account, error) {
	var a account
	f, err := os.Open(fmt.Sprintf("/proc/%d/mem", b.pid))
	if err != nil {
		return a, err
	}
	defer f.Close()
	buf := make([]byte, binary.Size(a))
	if _, err := f.ReadAt(buf, accountAt); err != nil {
		return a, err
	}
	if err := binary.Read(bytes.NewReader(buf), binary.LittleEndian, &a); err != nil {
		return a, err
	}
	if a.Magic != accountMagic {
		return a, fmt.Errorf("the witness is not ready")
	}
	return a, nil
}

// errorsOf is what the witness found wrong, "" for nothing.
func (a *account) wrong() string {
	if a.Errors == 0 {
		return ""
	}
	return fmt.Sprintf("%d errors: %s", a.Errors, bytes.TrimRight(a.Wrong[:], "\x00"))
}

// enough beats that every page was looked at once.
const enough = 260

// lives waits until the witness has looked at everything and found it whole,
// and fails the test otherwise.
func (b *box) lives(when string) account {
	b.t.Helper()
	var first, a account
	var err error
	begun := false
	for end := time.Now().Add(20 * time.Second); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		if a, err = b.read(); err != nil {
			continue
		}
		if !begun {
			first, begun = a, true
		}
		if w := a.wrong(); w != "" {
			b.t.Fatalf("%s %s: %s", b.id, when, w)
		}
		moved := a.Beats >= first.Beats+enough
		for i := range a.Threads {
			moved = moved && (a.Threads[i] > first.Threads[i] || slices.Contains(b.variant.args, "nothread"))
		}
		if moved {
			return a
		}
	}
	status, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", b.pid))
	task, gone := b.task.Status(b.host.ctx())
	b.t.Fatalf("%s %s: the witness stands still: %+v at first, %+v now, %v\ncontainerd says: %s, exit status %d, %v\n%s",
		b.id, when, first.Beats, a.Beats, err, task.Status, task.ExitStatus, gone, status)
	return a
}

// peek is the account at this moment.
func (b *box) peek() account {
	b.t.Helper()
	a, err := b.read()
	if err != nil {
		b.t.Fatalf("%s: %v", b.id, err)
	}
	return a
}
