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
