// SPDX-License-Identifier: Apache-2.0

package control

import (
	"context"

	"github.com/io-mig/mig/spec/record"
)

// quiet holds off the outside while the container still runs: what is under way in
// it comes to an end, and does not have to be carried.
func (x *Exporter) quiet(ctx context.Context) error {
	for _, sub := range x.opts.Subsystems {
		q, ok := sub.(Quieter)
		if !ok {
			continue
		}
		x.touched = true                      // Release is due
		got := make(chan []record.Finding, 1) // what comes after its time is dropped
		err := x.call(ctx, Place{Call: "quiet", Subsystem: sub.Name()}, func(ctx context.Context) error {
			found, err := q.Quiet(ctx)
			got <- found
			return err
		})
		if err != nil {
			return err
		}
		select {
		case found := <-got:
			for _, f := range found {
				x.update(func(r *Result) { r.Warnings = append(r.Warnings, f.String()) })
			}
		default:
		}
	}
	return nil
}
