// SPDX-License-Identifier: Apache-2.0

package arrive

import (
	"path/filepath"
	"testing"

	"github.com/io-mig/mig/layers/control/handover"
	"github.com/io-mig/mig/layers/request/journal"
	"github.com/io-mig/mig/layers/request/peer"
	"github.com/io-mig/mig/shim/host"
	"github.com/io-mig/mig/spec/wire"
)

// TestUsedToken: a token that was used before is refused at once. The record of the move
// that it was of says "arrived", and migd would believe that of a frame.
func TestUsedToken(t *testing.T) {
	d := New(Options{Host: &host.Host{}})
	d.journals = filepath.Join(t.TempDir(), "journal")
	token := wire.NewToken()
	if err := journal.Create(d.journals, journal.State{Token: token, Side: journal.Destination, Entry: handover.EntryRunning}); err != nil {
		t.Fatal(err)
	}
	m := &move{d: d, source: peer.Host{ID: "another"}}
	a, err := m.Consider(t.Context(), &peer.Offer{Token: token.String(), Namespace: "default"})
	if err != nil || len(a.Mismatches) != 1 || a.Mismatches[0].What != "token" {
		t.Errorf("%+v, %v", a, err)
	}
	if used, err := d.used(wire.NewToken().String()); used || err != nil {
		t.Errorf("a new one: %v, %v", used, err)
	}
	if _, err := d.used("x"); err == nil {
		t.Error("x is a token")
	}
}
