// SPDX-License-Identifier: Apache-2.0

package migrate

import (
	"testing"

	"github.com/io-mig/mig/layers/request/job"
)

func TestLogGoesIntoTheWorkDirectory(t *testing.T) {
	if got := logFile(&job.Job{}); got != "" {
		t.Errorf("without a work directory: %q", got)
	}
	if got, want := logFile(&job.Job{Work: "/w", Kind: job.Restore, Request: "r1"}), "/w/restore-r1.log"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}
