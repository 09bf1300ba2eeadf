// SPDX-License-Identifier: Apache-2.0

package depart

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/io-mig/mig/layers/request"
	"github.com/io-mig/mig/layers/request/address"
	"github.com/io-mig/mig/layers/request/job"
	"github.com/io-mig/mig/spec/network"
	"github.com/io-mig/mig/spec/wire"
)

func good() Options {
	return Options{Container: "web", Destination: "10.0.0.2", Strategy: "auto", Compress: "auto", TLS: "/etc/mig/tls"}
}

func TestDestinations(t *testing.T) {
	for typed, want := range map[string]string{
		"beta": "beta:7117", "beta:99": "beta:99", "10.0.0.2": "10.0.0.2:7117", "::1": "[::1]:7117", "[::1]": "[::1]:7117", "[fe80::1]:8": "[fe80::1]:8",
	} {
		o := good()
		o.Destination = typed
		if got := o.address(); got != want || o.valid() != nil {
			t.Errorf("%s is %s, %v, want %s", typed, got, o.valid(), want)
		}
	}
}

func TestWhatIsTypedIsChecked(t *testing.T) {
	for want, change := range map[string]func(o *Options){
		"a container and a destination": func(o *Options) { o.Container = "" },
		"no strategy":                   func(o *Options) { o.Strategy = "fast" },
		"compression":                   func(o *Options) { o.Compress = "gzip" },
		"cannot be negative":            func(o *Options) { o.Downtime = -1 },
		"is no port":                    func(o *Options) { o.Destination = "beta:0" },
		"too many colons":               func(o *Options) { o.Destination = "beta:1:2" },
		"loopback interface":            func(o *Options) { o.Insecure = true },
		"1001 rounds are too many":      func(o *Options) { o.Rounds = 1001 },
		"connections are too many":      func(o *Options) { o.Streams = 1000 },
		"want HOST, HOST:PORT or mig:":  func(o *Options) { o.Destination = "ftp://10.0.0.2" },
		"want file:///PATH":             func(o *Options) { o.LogURI = "web.log" },
		"with an absolute path":         func(o *Options) { o.LogURI = "file://var/log/web" },
		"no policy":                     func(o *Options) { o.Policies = map[string]string{"tpc": "keep"} },
	} {
		o := good()
		change(&o)
		if err := o.valid(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v", want, err)
		}
	}
}

// TestEngineIsToldEverything: the address says what was typed.
func TestEngineIsToldEverything(t *testing.T) {
	o := good()
	o.Strategy, o.Downtime, o.Timeout, o.Bandwidth, o.Streams, o.Rounds = "pre-copy", 5*time.Millisecond, time.Minute, 1<<20, 3, 7
	o.Compress, o.Peer, o.Policies = "zstd", "beta", map[string]string{"tcp": "keep"}
	token := wire.NewToken()
	m, err := address.ParseMove(o.move(token).String())
	if err != nil || m != (address.Move{
		Host: "10.0.0.2:7117", Token: token, Strategy: "pre-copy", Downtime: 5 * time.Millisecond, Timeout: time.Minute, Rounds: 7,
		Streams: 3, Bandwidth: 1 << 20, Compress: "zstd", TLS: "/etc/mig/tls", Peer: "beta", Policies: "tcp=keep",
	}) {
		t.Errorf("%+v, %v", m, err)
	}
}

// TestRounds: what is seen of the rounds adds up, also if some are skipped.
func TestRounds(t *testing.T) {
	var r rounds
	at := time.Now()
	see := func(after time.Duration, round int, bytes uint64) {
		r.see(&request.Status{Progress: job.Progress{Round: round, Bytes: bytes}}, at.Add(after))
	}
	see(0, 0, 0)
	see(100*time.Millisecond, 1, 1000)
	see(200*time.Millisecond, 1, 1500) // the second is under way
	see(300*time.Millisecond, 3, 1800)
	var sum uint64
	for i, x := range r.list {
		if sum += x.Bytes; x.Round != i+1 {
			t.Errorf("round %d is the %dth", x.Round, i+1)
		}
	}
	if len(r.list) != 3 || sum != 1800 || r.list[0].MS != 100 {
		t.Errorf("%+v", r.list)
	}
}

// TestUnmapped: an address that is to be changed, and that the container does not have,
// is refused; what an annotation or another host's network says is not looked at.
func TestUnmapped(t *testing.T) {
	own := &network.Request{Own: true, Interfaces: []network.Interface{
		{Name: "eth0", Addresses: []netip.Prefix{netip.MustParsePrefix("10.0.0.7/24"), netip.MustParsePrefix("fd00::7/64")}},
	}}
	for _, c := range []struct {
		chosen, want string
		r            *network.Request
	}{
		{"", "", own},
		{"10.0.0.7=10.0.0.8,fd00::7=fd00::8", "", own},
		{"10.0.0.9=10.0.0.8", "no interface of the container has the address 10.0.0.9 (they have 10.0.0.7 fd00::7)", own},
		{"10.0.0.9=10.0.0.8", "(they have none)", &network.Request{Own: true}},
		{"10.0.0.9=10.0.0.8", "", &network.Request{}},
		{"10.0.0.9=10.0.0.8", "", nil},
		{"10.0.0.9", "is not OLD=NEW", own},
	} {
		err := unmapped(c.chosen, c.r)
		if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%q: %v, want %q", c.chosen, err, c.want)
		}
	}
}
