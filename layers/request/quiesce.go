// SPDX-License-Identifier: Apache-2.0

package request

import (
	"context"
	"log/slog"

	"github.com/io-mig/mig/layers/request/enginepipe"
	"github.com/io-mig/mig/layers/request/job"
)

// quiesce puts the application to rest for the engine and answers it. An engine
// that is gone meanwhile shows elsewhere.
func (r *process) quiesce(ctx context.Context) {
	var err error
	if r.app != nil {
		err = r.app.Quiesce(ctx)
	}
	_ = r.conn.Send(enginepipe.Message{Quiesced: &enginepipe.Quiesced{Failure: job.FailureOf(err)}}, sendTimeout)
}

func (r *process) wake(reason string) {
	if err := r.app.Wake(reason); err != nil {
		slog.Error("the application is not told that its container goes on", "error", err)
	}
}
