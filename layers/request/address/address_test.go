// SPDX-License-Identifier: Apache-2.0

package address

import (
	"strings"
	"testing"
	"time"

	"github.com/io-mig/mig/spec/wire"
)

func TestMove(t *testing.T) {
	token := wire.NewToken()
	for _, want := range []Move{
		{Host: "b.example:7117"},
		{Host: "10.0.0.2:99", Token: token, Insecure: true},
		{Host: "[fe80::1]:7117", Token: token, TLS: "/etc/mig/tls", Strategy: "pre-copy", Downtime: 20 * time.Millisecond, Timeout: time.Minute,
			Rounds: 3, AutoConverge: true, Streams: 4, Bandwidth: 1 << 30, Compress: "zstd", Peer: "b", Policies: "copy-volume=%2Fdata"},
	} {
		got, err := ParseMove(want.String())
		if err != nil || got != want {
			t.Errorf("%s: %+v, %v", want, got, err)
		}
		if !IsMove(want.String()) {
			t.Errorf("%s is no move", want)
		}
	}
	m, err := ParseMove("mig://b.example")
	if err != nil || m.Host != "b.example:7117" || m.PeerName() != "b.example" || m.Prepared() {
		t.Errorf("%+v, %v", m, err)
	}
	for bad, want := range map[string]string{
		"mig://":                                    "no host",
		"mig:b":                                     "want mig://",
		"mig://b/path":                              "want mig://",
		"mig://b?token=12":                          "hexadecimal",
		"mig://b?token=" + token.String():           "tls=",
		"mig://b?speed=3":                           "not known",
		"mig://b?downtime=20":                       "duration",
		"mig://b?streams=65":                        "number",
		"mig://b?streams=-1":                        "number",
		"mig://b?rounds=1&rounds=2":                 "twice",
		"mig://b?tls=relative":                      "absolute",
		"mig://b?insecure=yes":                      "neither",
		"mig://b?insecure=true&tls=/x":              "excludes",
		"mig://b?policies=a%3Db":                    "no policy",
		"mig://user@b":                              "want mig://",
		"dir:/x":                                    "want mig://",
		"mig://b?bandwidth=99999999999999999999999": "number",
	} {
		if _, err := ParseMove(bad); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", bad, err)
		}
	}
}

func TestIncoming(t *testing.T) {
	token := wire.NewToken()
	for _, want := range []Incoming{
		{Socket: "/run/migd/incoming/" + token.String() + ".sock", Token: token, TLS: "/etc/mig"},
		{Socket: "/run/migd/incoming/" + token.String() + ".sock", Token: token, TLS: "/etc/mig", From: "host & name,10.0.0.1"},
		{Socket: "/a b?c/" + token.String() + ".sock", Token: token, Insecure: true},
	} {
		got, err := ParseIncoming(want.String())
		if err != nil || got != want {
			t.Errorf("%s: %+v, %v", want, got, err)
		}
	}
	for bad, want := range map[string]string{
		"mig-incoming:/run/x.sock?insecure=true":                              "hexadecimal",
		"mig-incoming:/run/" + token.String():                                 ".sock",
		"mig-incoming:run/" + token.String() + ".sock":                        "want mig-incoming",
		"mig-incoming:/run/../" + token.String() + ".sock":                    "want mig-incoming",
		"mig-incoming:/run/" + token.String() + ".sock":                       "tls=",
		"mig-incoming:/run/" + token.String() + ".sock?insecure=true&token=1": "not known",
		"mig-incoming://host/" + token.String() + ".sock?insecure=true":       "want mig-incoming",
	} {
		if _, err := ParseIncoming(bad); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", bad, err)
		}
	}
}
