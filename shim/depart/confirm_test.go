// SPDX-License-Identifier: Apache-2.0

package depart

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/io-mig/mig/layers/control/handover"
	"github.com/io-mig/mig/layers/request/journal"
)

// TestConfirm: what is left of an original is removed only when its destination says
// that the copy is there, whole.
func TestConfirm(t *testing.T) {
	type answer struct {
		said  handover.Message
		whole bool
		err   error
	}
	cut := errors.New("no route")
	for _, test := range []struct {
		name      string
		answers   []answer // the last one is repeated
		confirmed bool
		took      time.Duration
	}{
		{"at once", []answer{{handover.Running, true, nil}}, true, 0},
		{"when migd is back", []answer{{0, false, cut}, {0, false, cut}, {handover.Running, true, nil}}, true, 2 * confirmEvery},
		{"when it is whole", []answer{{handover.Running, false, nil}, {handover.Running, true, nil}}, true, confirmEvery},
		{"its host was started anew", []answer{{0, false, cut}, {0, false, journal.ErrUnknown}}, false, confirmEvery},
		{"it is lost", []answer{{handover.Lost, true, nil}}, false, 0},
		{"never", []answer{{0, false, cut}}, false, time.Minute},
	} {
		synctest.Test(t, func(t *testing.T) {
			begun, n := time.Now(), 0
			err := confirm(t.Context(), func(context.Context) (handover.Message, bool, error) {
				a := test.answers[min(n, len(test.answers)-1)]
				n++
				return a.said, a.whole, a.err
			}, time.Minute)
			if took := time.Since(begun); (err == nil) != test.confirmed || took != test.took {
				t.Errorf("%s: %v, after %s", test.name, err, took)
			}
		})
	}
}
