// SPDX-License-Identifier: Apache-2.0

package socket_test

import (
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/io-mig/mig/layers/kernel/kerneltest"
	"github.com/io-mig/mig/layers/kernel/socket"
	"github.com/io-mig/mig/spec/state"
)

// TestForgedClaims: an image whose sockets claim an address that the network does not
// have, or a port that the spec's user may not bind, is refused by name, and no
// process of it is left.
func TestForgedClaims(t *testing.T) {
	loopback := string([]byte{127, 0, 0, 1})
	elsewhere := func(m *state.Socket) bool {
		// sin_port, sin_addr.
		if len(m.Local) < 6 || string(m.Local[2:6]) != loopback {
			return false
		}
		copy(m.Local[2:6], []byte{203, 0, 113, 7}) // TEST-NET-3 of RFC 5737
		return true
	}
	privileged := func(m *state.Socket) bool {
		if len(m.Local) < 6 || m.State != state.SocketState_SOCKET_STATE_LISTENING || string(m.Local[2:6]) != loopback {
			return false
		}
		copy(m.Local[:2], []byte{0, 81})
		return true
	}
	for name, c := range map[string]struct {
		program kerneltest.Program
		forge   func(*state.Socket) bool
		want    string
	}{
		"address of datagrams":     {kerneltest.Program{Source: "testdata/datagrams.c"}, elsewhere, "this network has no such address"},
		"address of a connection":  {kerneltest.Program{Source: "testdata/tcp.c"}, elsewhere, "address"},
		"port of another's server": {kerneltest.Program{Source: "testdata/tcp.c", UID: 1000, GID: 1000, Allowed: &kerneltest.Allowed{UID: 1000, GID: 1000}}, privileged, "may not bind it"},
	} {
		t.Run(name, func(t *testing.T) {
			o := kerneltest.Start(t, c.program)
			image, err := o.Export(false, with(nil)...)
			if err != nil {
				t.Fatal(err)
			}
			o.Stop()
			forged := 0
			for _, r := range image.Records {
				if r.Subsystem != socket.Name || r.Kind != socket.KindSocket {
					continue
				}
				m := &state.Socket{}
				if err := proto.Unmarshal(r.Payload, m); err != nil {
					t.Fatal(err)
				}
				if !c.forge(m) {
					continue
				}
				forged++
				if r.Payload, err = proto.Marshal(m); err == nil {
					err = r.Seal()
				}
				if err != nil {
					t.Fatal(err)
				}
			}
			if forged == 0 {
				t.Fatal("the image has no such socket")
			}
			if _, err := o.Import(image, with(nil)...); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("the import says %v, want %q", err, c.want)
			}
		})
	}
}
