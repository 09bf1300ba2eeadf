// SPDX-License-Identifier: Apache-2.0

package victim

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"golang.org/x/sys/unix"
)

// Where src/victim.c puts its page and its data.
const (
	boardAddress uintptr = 0x200000000000
	dataAddress  uintptr = 0x210000000000
	boardMagic   uint64  = 0x6d696762656e6368
)

// Words of the page, in the order of struct board.
const (
	wordMagic = iota
	wordLooks
	wordMonotonic
	wordRealtime
	wordCommand
	wordAnswered
	wordResult
	wordDirtied
	wordThreads
	wordWriter
	boardWords
)

// Commands, in the order of enum command.
const (
	commandReset uint64 = iota + 1
	commandVerify
	commandRenew
	commandWake
)

// Victim is a running program.
type Victim struct {
	Pid    int // as this process sees it
	Config Config
}

// Silence is the longest time between two looks of the program at a clock.
type Silence struct {
	Monotonic, Realtime time.Duration
	// Writer is that of the thread that dirties memory, at CLOCK_REALTIME; 0
	// where there is none.
	Writer time.Duration
	Looks  uint64 // at the clocks, since the program's start
}

// Longest is what the program was kept from, whichever thread it was: the one
// that waits for a page is not the one that looks at the clocks.
func (s Silence) Longest() time.Duration { return max(s.Realtime, s.Writer) }

// readyTimeout bounds the filling of the memory and every command.
const readyTimeout = 2 * time.Minute

// Attach waits until the program of process pid is ready.
func Attach(ctx context.Context, pid int, c Config) (*Victim, error) {
	v := &Victim{Pid: pid, Config: c}
	err := v.await(ctx, func(b [boardWords]uint64) bool { return b[wordMagic] == boardMagic })
	if err != nil {
		return nil, fmt.Errorf("workload %d did not get ready: %w", pid, err)
	}
	return v, nil
}

// Reset forgets the silences seen so far.
func (v *Victim) Reset(ctx context.Context) error {
	_, err := v.command(ctx, commandReset)
	return err
}

// Silence asks for the longest since Reset. The program must have looked at
// its clocks again, or a silence that has just ended would not be seen.
func (v *Victim) Silence(ctx context.Context) (Silence, error) {
	first, err := v.board()
	if err != nil {
		return Silence{}, err
	}
	var last [boardWords]uint64
	err = v.await(ctx, func(b [boardWords]uint64) bool {
		last = b
		return b[wordLooks] >= first[wordLooks]+2
	})
	return Silence{
		Monotonic: time.Duration(last[wordMonotonic]), Realtime: time.Duration(last[wordRealtime]),
		Writer: time.Duration(last[wordWriter]), Looks: last[wordLooks],
	}, err
}

// Verify has the program compare every word of its memory with what it was.
func (v *Victim) Verify(ctx context.Context) error {
	wrong, err := v.command(ctx, commandVerify)
	if err == nil && wrong > 0 {
		err = fmt.Errorf("workload %d: %d words of its memory are not what they were", v.Pid, wrong)
	}
	return err
}

// Renew has the program replace its data by memory that nobody has touched.
// Verify fails afterwards.
func (v *Victim) Renew(ctx context.Context) error {
	_, err := v.command(ctx, commandRenew)
	return err
}

// Wake wakes all sleeping threads and fails unless all answer.
func (v *Victim) Wake(ctx context.Context) error {
	awake, err := v.command(ctx, commandWake)
	if err == nil && awake != uint64(v.Config.Threads) {
		err = fmt.Errorf("workload %d: %d of %d threads woke up", v.Pid, awake, v.Config.Threads)
	}
	return err
}

func (v *Victim) command(ctx context.Context, command uint64) (uint64, error) {
	before, err := v.board()
	if err != nil {
		return 0, err
	}
	var word [8]byte
	binary.LittleEndian.PutUint64(word[:], command)
	if err := write(v.Pid, boardAddress+wordCommand*8, word[:]); err != nil {
		return 0, err
	}
	var result uint64
	err = v.await(ctx, func(b [boardWords]uint64) bool {
		result = b[wordResult]
		return b[wordAnswered] > before[wordAnswered]
	})
	return result, err
}

// await reads the page until it is as wanted.
func (v *Victim) await(ctx context.Context, wanted func([boardWords]uint64) bool) error {
	ctx, cancel := context.WithTimeout(ctx, readyTimeout)
	defer cancel()
	for {
		b, err := v.board()
		switch {
		case err == nil && wanted(b):
			return nil
		case err != nil && !errors.Is(err, unix.EFAULT):
			return err // EFAULT: the page is not there yet
		}
		select {
		case <-ctx.Done():
			return errors.Join(ctx.Err(), err)
		case <-time.After(500 * time.Microsecond):
		}
	}
}

func (v *Victim) board() (words [boardWords]uint64, err error) {
	var raw [boardWords * 8]byte
	if err := read(v.Pid, boardAddress, raw[:]); err != nil {
		return words, err
	}
	for i := range words {
		words[i] = binary.LittleEndian.Uint64(raw[i*8:])
	}
	return words, nil
}
