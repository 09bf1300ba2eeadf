// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"maps"
	"strings"
	"testing"
)

func TestEncode(t *testing.T) {
	for _, want := range []map[string]string{{}, {TCP: "keep"}, {CopyVolume: "/a,/b c&d=e", SharedVolume: "/x"}} {
		got, err := Decode(Encode(want))
		if err != nil || !maps.Equal(got, want) {
			t.Errorf("%v becomes %v, %v", want, got, err)
		}
	}
}

func TestUnknownIsRefused(t *testing.T) {
	for _, bad := range []string{"tpc=keep", "tcp", "tcp=", "tcp=a&tcp=b", "tcp=%zz", "tcp=" + strings.Repeat("x", maxValue+1)} {
		if p, err := Decode(bad); err == nil {
			t.Errorf("%.40q is taken for %v", bad, p)
		}
	}
}

func TestAnnotationsComeFirst(t *testing.T) {
	got := Add(map[string]string{TCP: "close"}, map[string]string{TCP: "keep", Tmpfs: "drop"})
	if want := map[string]string{TCP: "close", Tmpfs: "drop"}; !maps.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}
