// SPDX-License-Identifier: Apache-2.0

package engine

import (
	"github.com/io-mig/mig/layers/control"
	"github.com/io-mig/mig/layers/kernel/target"
	"github.com/io-mig/mig/layers/request/job"
)

const (
	// imageRounds bounds the early rounds of a checkpoint into an image: what is
	// written to meanwhile is in the image once more for each.
	imageRounds = 2
	// earlyFrom is the memory of a process, in bytes, from which auto makes early
	// rounds. To copy less takes no longer than to begin the tracking of writes.
	earlyFrom = 32 << 20
)

// imageStrategy is the transfer order of a checkpoint into an image. Unless one is
// asked for, a container that runs on is stopped for as short as can be, and one
// that ends is saved at once: its clocks stand still from the first early round to
// its restore, which catches up with them only as fast as time goes by. So does one
// with an agent, whose hooks come in between.
//
// brief: the container is stopped for so short that its wait for a processor would
// count.
func imageStrategy(j *job.Job, src *target.Source) (s control.Strategy, brief bool, err error) {
	large := j.Leave && src.Largest() >= earlyFrom
	name := j.Strategy
	if name == "" || name == control.Auto.Name {
		name = control.StopAndCopy.Name
		if large && !j.WasPaused && !src.Agent {
			name = control.PreCopy.Name
		}
	}
	s, err = control.StrategyByName(name)
	s.Rounds = min(s.Rounds, imageRounds)
	return s, j.Leave && (s.Rounds > 0 || !large), err
}
