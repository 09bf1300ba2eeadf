// SPDX-License-Identifier: Apache-2.0

package request

import (
	"testing"

	"github.com/io-mig/mig/layers/request/job"
)

// TestPick: which transfer orders an image and a move take.
func TestPick(t *testing.T) {
	for _, test := range []struct {
		kind        job.Kind
		image, asks string
		want        string // empty: refused
	}{
		{job.Checkpoint, "/image", "", "auto"},
		{job.Checkpoint, "/image", "auto", "auto"},
		{job.Checkpoint, "/image", "pre-copy", "pre-copy"},
		{job.Checkpoint, "/image", "stop-and-copy", "stop-and-copy"},
		{job.Checkpoint, "/image", "post-copy", ""},
		{job.Checkpoint, "/image", "hybrid", ""},
		{job.Checkpoint, "/image", "quickly", ""},
		{job.Checkpoint, "mig://host:7117?strategy=quickly", "", ""},
		{job.Restore, "/image", "", "stop-and-copy"},
		{job.Restore, "/image", "pre-copy", ""},
	} {
		j := &job.Job{Kind: test.kind, Image: test.image, Strategy: test.asks}
		if err := pick(j); (err != nil) != (test.want == "") || err == nil && j.Strategy != test.want {
			t.Errorf("%s %s by %q: %q, %v, want %q", test.kind, test.image, test.asks, j.Strategy, err, test.want)
		}
	}
}
