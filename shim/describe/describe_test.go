// SPDX-License-Identifier: Apache-2.0

package describe

import (
	"maps"
	"testing"
)

func TestFreezer(t *testing.T) {
	for want, paths := range map[string]map[string]string{
		"/v1": {"freezer": "/v1", "memory": "/m", "": "/v2"},
		"/v2": {"": "/v2"},
		"":    {"memory": "/m"},
	} {
		if got := freezer(paths); got != want {
			t.Errorf("of %v: %q, want %q", paths, got, want)
		}
	}
}

func TestOptions(t *testing.T) {
	got := Options(map[string]string{"io.mig/tcp": "keep", "nerdctl/name": "x", "io.migx/y": "z"})
	if !maps.Equal(got, map[string]string{"tcp": "keep"}) {
		t.Errorf("got %v", got)
	}
}

// TestOwn: what was chosen for the move that brought a container here is not chosen
// for its next checkpoint or move.
func TestOwn(t *testing.T) {
	arrived := map[string]string{
		"io.mig/tmpfs": "drop", "io.mig/copy-volume": "/data", "io.mig/map-ip": "10.0.0.1=10.0.0.2",
		AddedForMove: "io.mig/copy-volume,io.mig/map-ip",
	}
	got := Options(own(arrived))
	delete(got, "incoming-policies")
	if !maps.Equal(got, map[string]string{"tmpfs": "drop"}) {
		t.Errorf("of a container that has arrived: %v", got)
	}
	if arrived["io.mig/copy-volume"] == "" {
		t.Error("the annotations themselves were changed")
	}
	if got := Options(own(nil)); len(got) != 0 {
		t.Errorf("of no annotations: %v", got)
	}
}

// TestCheckOptions: a misspelt annotation is told, one that means something is not.
func TestCheckOptions(t *testing.T) {
	if got := CheckOptions(Options(map[string]string{
		"io.mig/tcp": "keep", "io.mig/agent": "true", "io.mig/semundo": "drop", "io.mig/checkpoint-strategy": "pre-copy",
		"io.mig/leave-running": "true", AddedForMove: "io.mig/tcp", "org.x/tpc": "keep",
	})); len(got) != 0 {
		t.Errorf("of good ones: %v", got)
	}
	got := CheckOptions(Options(map[string]string{"io.mig/tpc": "keep", "io.mig/checkpoint-strategy": "post-copy"}))
	if len(got) != 2 {
		t.Fatalf("of bad ones: %v", got)
	}
	if typo, order := got[0], got[1]; !typo.Warning || typo.What != "io.mig/tpc" || order.Warning || order.Remedy != "choose auto, stop-and-copy, pre-copy" {
		t.Errorf("of bad ones: %+v", got)
	}
}
