// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"text/tabwriter"

	"github.com/io-mig/mig/shim/depart"
)

// drained is the outcome of moving everything.
type drained struct {
	Destination string           `json:"destination"`
	Moved       int              `json:"moved"`
	Failed      int              `json:"failed"`
	Moves       []*depart.Report `json:"moves"`
	// Others are running containers of other runtimes: they stay here.
	Others []string `json:"others"`
}

// drain moves every running container of the namespace, some at a time. What
// becomes of one is no matter to the others.
func (o *migrateOptions) drain(ctx context.Context, out, progress io.Writer) error {
	if o.parallel < 1 {
		return fmt.Errorf("--parallel %d: want one move at a time at least", o.parallel)
	}
	ids, err := o.Host.Running(ctx, o.Namespace)
	if err != nil {
		return err
	}
	others, err := o.Host.Others(ctx, o.Namespace)
	if err != nil {
		return err
	}
	d := &drained{Destination: o.Destination, Moves: make([]*depart.Report, len(ids)), Others: append([]string{}, others...)}
	o.Bandwidth = portion(o.Bandwidth, min(o.parallel, len(ids)))
	var mu sync.Mutex
	tell := func(r *depart.Report, err error) {
		mu.Lock()
		defer mu.Unlock()
		if err == nil {
			d.Moved++
		} else {
			d.Failed++
		}
		if !o.json {
			fmt.Fprintf(progress, "%d of %d: %s\n", d.Moved+d.Failed, len(ids), outcomeLine(r, err))
		}
	}
	turns := make(chan struct{}, o.parallel)
	var wg sync.WaitGroup
	for i, id := range ids {
		turns <- struct{}{}
		wg.Go(func() {
			defer func() { <-turns }()
			each := o.Options
			each.Container = id
			inDoubt := doubts{w: progress}
			each.Observe = func(p depart.Progress) { inDoubt.show(p.Doubt) }
			r, err := depart.Move(ctx, each)
			d.Moves[i] = r
			tell(r, err)
		})
	}
	wg.Wait()
	err = o.page.write(d.Moves...)
	if o.json {
		err = errors.Join(err, printJSON(out, d))
	} else {
		_, werr := io.WriteString(out, d.table())
		err = errors.Join(err, werr)
	}
	if d.Failed > 0 {
		err = errors.Join(err, fmt.Errorf("%d of %d containers were not moved", d.Failed, len(ids)))
	}
	return err
}

func outcomeLine(r *depart.Report, err error) string {
	if err == nil {
		return strings.TrimSuffix(moved(r), "\n")
	}
	return fmt.Sprintf("%s was not moved: %s", oneLine(r.Container), oneLine(err.Error()))
}

func (d *drained) table() string {
	var b strings.Builder
	if len(d.Others) > 0 {
		fmt.Fprintf(&b, "of other runtimes, these stay here: %s\n", oneLine(strings.Join(d.Others, ", ")))
	}
	if len(d.Moves) == 0 {
		return b.String() + "no containers of io.mig.v1 run in this namespace\n"
	}
	w := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "CONTAINER\tOUTCOME\tTIME\tSTOPPED\tSIZE")
	for _, r := range d.Moves {
		outcome := "moved"
		if r.Failure != nil {
			outcome = "failed: " + oneLine(string(r.Failure.Kind))
		}
		if r.Moved && r.Failure != nil {
			outcome = "moved, not removed here"
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\n", oneLine(r.Container), outcome, took(millis(r.TotalMS)), took(millis(r.DowntimeMS)), size(r.Bytes))
	}
	_ = w.Flush() // a strings.Builder takes everything
	return b.String()
}

// portion is what each of n moves at a time may have of a bandwidth; 0 is no limit.
func portion(bandwidth uint64, n int) uint64 {
	if bandwidth == 0 || n < 1 {
		return bandwidth
	}
	return max(1, bandwidth/uint64(n))
}
