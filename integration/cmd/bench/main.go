// SPDX-License-Identifier: Apache-2.0

// Command bench measures mig beside runc with CRIU, process_vm_readv alone and
// runc's shim, all in one run. `make bench` builds and starts it as root; it
// prints tables and writes bench-out/results.json and results.md. With -live
// (`make bench-live`) it measures moves between two hosts instead, and writes
// bench-out/live.json and live.md.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/io-mig/mig/integration/bench/machine"
	"github.com/io-mig/mig/integration/bench/report"
)

// section is one part of the benchmark.
type section struct {
	name string
	run  func(context.Context, *bench) error
}

var sections = []section{
	{name: "fixed", run: fixed},
	{name: "containerd", run: containerd},
	{name: "silence", run: silences},
	{name: "threads", run: threads},
	{name: "processes", run: processes},
	{name: "throughput", run: throughput},
	{name: "peak", run: peak},
	{name: "idle", run: idle},
}

func main() {
	live := flag.Bool("live", false, "measure live moves between two hosts")
	runs := flag.Int("runs", 0, "measurements of each kind (10; live 3, and 10 moves of each server with clients)")
	out := flag.String("out", "bench-out", "`directory` for results.json and results.md")
	document := flag.String("document", "", "Markdown `file` whose results are replaced too, docs/benchmarks.md for example")
	only := flag.String("only", "", "comma-separated sections: "+names(sections)+"; live: "+names(liveSections))
	sizes := flag.String("sizes", "", "megabytes, of the throughput section (64,512,2048) or of live moves (1,64,512,2048)")
	strategies := flag.String("strategies", "", "comma-separated strategies of live moves (all)")
	timeout := flag.Duration("timeout", turnTimeout, "most that one live move may take, with its program's start and proof")
	shim := flag.String("shim", "", "another `build` of containerd-shim-mig-v1, one with symbols for example")
	noPeer := flag.Bool("no-peer", false, "leave runc + CRIU out")
	flag.Parse()
	if outside, status := withOwnMounts(); outside {
		os.Exit(status)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	o := options{
		runs: *runs, only: *only, sizes: *sizes, shim: *shim, out: *out, peer: !*noPeer,
		live: *live, strategies: *strategies, timeout: *timeout,
	}
	o.complete()
	r := &report.Report{Name: o.name(), Started: time.Now().UTC(), Runs: o.runs, Counted: o.counted(), Machine: machine.Describe(), Versions: map[string]string{}}
	err := measure(ctx, r, o)
	r.PrintGoals(os.Stdout)
	r.Took = time.Since(r.Started).Round(time.Second).String()
	r.Machine.LoadAfter = machine.Load()
	err = errors.Join(err, r.Save(*out))
	if *document != "" {
		err = errors.Join(err, r.Into(*document))
	}
	if n := r.Failed(); n > 0 {
		err = errors.Join(err, fmt.Errorf("%d measurements failed, see above", n))
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func names(of []section) string {
	var all []string
	for _, s := range of {
		all = append(all, s.name)
	}
	return strings.Join(all, ", ")
}

// measure runs the sections that are wanted. What fails in one is in the
// report; the others still run.
func measure(ctx context.Context, r *report.Report, o options) (err error) {
	sections := o.sections()
	wanted := strings.FieldsFunc(o.only, func(c rune) bool { return c == ',' })
	for _, name := range wanted {
		if !slices.ContainsFunc(sections, func(s section) bool { return s.name == name }) {
			return fmt.Errorf("there is no section %q, only %s", name, names(sections))
		}
	}
	b, err := newBench(ctx, r, o)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, b.close()) }()
	if o.live {
		if err := b.openWorld(ctx); err != nil {
			return err
		}
	}
	for _, s := range sections {
		if len(wanted) > 0 && !slices.Contains(wanted, s.name) {
			continue
		}
		if err := s.run(ctx, b); err != nil && ctx.Err() == nil {
			r.Add(s.name, "").Fail(s.name, err)
		}
		if err := errors.Join(b.flush(), ctx.Err()); err != nil {
			return err
		}
	}
	return nil
}
