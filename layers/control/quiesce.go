// SPDX-License-Identifier: Apache-2.0

package control

import "context"

// quiesce has the application come to rest while its tasks still run.
func (x *Exporter) quiesce(ctx context.Context) error {
	if x.opts.Quiesce == nil {
		return nil
	}
	x.quiesced = true
	return x.call(ctx, Place{Call: "quiesce"}, x.opts.Quiesce)
}

// wake tells the application that this container goes on.
func (x *Exporter) wake(ctx context.Context, cause error) error {
	if !x.quiesced {
		return nil
	}
	x.quiesced = false
	return x.lastCall(ctx, Place{Call: "wake"}, func(ctx context.Context) error { return x.opts.Wake(ctx, cause) })
}
