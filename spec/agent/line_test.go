// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"maps"
	"strings"
	"testing"
)

func TestRoundTrip(t *testing.T) {
	for _, l := range []Line{
		New(Ready), New(Hello, "version", Version, "event", "a b"),
		New(Refuse, "reason", "100 % busy = no\n\x00ü"), New(Resumed, "outcome", Restored, "generation", "00ff"),
	} {
		got, err := Parse(l.String())
		if err != nil || got.Verb != l.Verb || !maps.Equal(got.Fields, l.Fields) {
			t.Errorf("%q: %+v, %v", l.String(), got, err)
		}
		if strings.ContainsAny(l.String(), "\n\x00") {
			t.Errorf("%q is no single line", l.String())
		}
	}
	if s := New(Hello, "version", "1", "event", "").String(); s != "HELLO version=1" {
		t.Errorf("%q", s)
	}
}

func TestParseRefuses(t *testing.T) {
	for _, s := range []string{
		"", " ", "hello", "HELLO ", "HELLO x", "HELLO =1", "HELLO a=%zz", "HELLO a=1 a=2", "HELLO  a=1",
		"HELLO a=" + strings.Repeat("x", MaxLine),
	} {
		if l, err := Parse(s); err == nil {
			t.Errorf("%.40q is %+v", s, l)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add("HELLO version=1 event=x")
	f.Add("RESUMED outcome=restored reason=a+b%0A")
	f.Fuzz(func(t *testing.T, s string) {
		l, err := Parse(s)
		if err != nil {
			return
		}
		for k, v := range l.Fields {
			if v == "" {
				delete(l.Fields, k)
			}
		}
		// Keys are not escaped: one that holds what ends a field cannot have come
		// from Parse.
		again, err := Parse(l.String())
		if err != nil && len(l.String()) < MaxLine || err == nil && !maps.Equal(l.Fields, again.Fields) {
			t.Errorf("%q: %+v, then %+v, %v", s, l, again, err)
		}
	})
}
