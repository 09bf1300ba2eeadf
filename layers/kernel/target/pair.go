// SPDX-License-Identifier: Apache-2.0

package target

import (
	"encoding/binary"
	"fmt"

	"github.com/io-mig/mig/layers/kernel/tracer"
)

// pair is a call that writes two descriptors to the task's memory.
type pair struct {
	addr   uint64
	fd     [2]int
	callAt int
}

// OpenPair appends a call that opens two descriptors and writes their numbers,
// two 32-bit words, to addr in the task's memory: pipe2(2), socketpair(2). It
// returns the numbers that they will get; Run checks them.
func (p *Plan) OpenPair(c tracer.Call, addr uint64) (int, int) {
	var q pair
	q.addr, q.callAt = addr, p.Call(c)
	p.expect[q.callAt] = 0
	for i := range q.fd {
		q.fd[i] = p.task.Table.lowest(0)
		p.task.Table.used[q.fd[i]] = true
	}
	p.pairs = append(p.pairs, q)
	return q.fd[0], q.fd[1]
}

// PlacePair places two descriptors that were opened together: the wanted
// numbers of one may be the present number of the other.
func (p *Plan) PlacePair(desc [2]uint64, fd [2]int) error {
	moved := p.DupAbove(fd[1], p.task.Table.Aside())
	p.Close(fd[1])
	if err := p.Place(desc[0], fd[0]); err != nil {
		return err
	}
	return p.Place(desc[1], moved)
}

// checkPairs compares what the kernel wrote with what was expected.
func (p *Plan) checkPairs() error {
	for _, q := range p.pairs {
		var b [8]byte
		if err := p.task.Traced.Read(q.addr, b[:]); err != nil {
			return err
		}
		for i, want := range q.fd {
			if got := int(binary.LittleEndian.Uint32(b[4*i:])); got != want {
				return fmt.Errorf("remote call %d opened descriptor %d where %d was the lowest free one: somebody else runs in the task", q.callAt, got, want)
			}
		}
	}
	return nil
}
