// SPDX-License-Identifier: Apache-2.0

//go:build linux

package kerneltest_test

import (
	"fmt"
	"slices"
	"strconv"
	"testing"

	"github.com/io-mig/mig/layers/control"
	"github.com/io-mig/mig/layers/kernel/kerneltest"
)

// BenchmarkMove measures the silence of a program that is moved through a pipe
// in memory, as the program itself notices it: the longest time in which it did
// not run. It writes nothing, or so many megabytes per second. With -v the last
// move's time line is shown.
func BenchmarkMove(b *testing.B) {
	for _, size := range []int{64, 512, 2048} {
		for _, rate := range []int{0, 100} {
			b.Run(fmt.Sprintf("%dMB/%dMBps", size, rate), func(b *testing.B) { benchMove(b, size, rate) })
		}
	}
}

func benchMove(b *testing.B, size, rate int) {
	c := kerneltest.Start(b, kerneltest.Program{Source: "testdata/dirty.c", Args: []string{strconv.Itoa(size), "1", strconv.Itoa(rate)}})
	var silent, down []int
	var last *kerneltest.Moved
	for range b.N {
		c.Send("s") // forgets what was before
		c.Line()
		n, m, err := c.Move(control.PreCopy, whole...)
		if err != nil {
			b.Fatal(err)
		}
		c, last = n, m
		c.Send("s")
		us, err := strconv.Atoi(c.Line())
		if err != nil {
			b.Fatal(err)
		}
		silent, down = append(silent, us), append(down, int(m.Source.Downtime.Microseconds()))
	}
	slices.Sort(silent)
	slices.Sort(down)
	b.ReportMetric(float64(silent[0]), "min-silence-us")
	b.ReportMetric(float64(silent[len(silent)/2]), "silence-us")
	b.ReportMetric(float64(down[len(down)/2]), "downtime-us")
	b.Logf("%d rounds, %q\n%s", len(last.Source.Rounds), last.Notes, last.TimeLine())
}
