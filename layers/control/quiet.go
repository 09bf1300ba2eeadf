// SPDX-License-Identifier: Apache-2.0

package control

import "context"

// quiet holds off the outside while the container still runs: what is under way in
// it comes to an end, and does not have to be carried.
func (x *Exporter) quiet(ctx context.Context) error {
	for _, sub := range x.opts.Subsystems {
		q, ok := sub.(Quieter)
		if !ok {
			continue
		}
		x.touched = true // Release is due
		if err := x.call(ctx, Place{Call: "quiet", Subsystem: sub.Name()}, q.Quiet); err != nil {
			return err
		}
	}
	return nil
}
