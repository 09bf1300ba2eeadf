// SPDX-License-Identifier: Apache-2.0

package socket_test

import (
	"maps"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/io-mig/mig/layers/kernel/cpu"
	"github.com/io-mig/mig/layers/kernel/file"
	"github.com/io-mig/mig/layers/kernel/kerneltest"
	"github.com/io-mig/mig/layers/kernel/memory"
	"github.com/io-mig/mig/layers/kernel/pipe"
	"github.com/io-mig/mig/layers/kernel/signal"
	"github.com/io-mig/mig/layers/kernel/socket"
	"github.com/io-mig/mig/layers/kernel/target"
	"github.com/io-mig/mig/layers/kernel/task"
	"github.com/io-mig/mig/spec/record"
)

// with are the subsystems, the sockets' with options.
func with(options map[string]string) []kerneltest.Constructor {
	return []kerneltest.Constructor{
		kerneltest.Of(memory.New), kerneltest.Of(task.New), kerneltest.Of(file.New), kerneltest.Of(pipe.New),
		kerneltest.Of(signal.New), kerneltest.Of(cpu.New),
		kerneltest.Of(func(env target.Env) *socket.Subsystem {
			env.Options = maps.Clone(options)
			return socket.New(env)
		}),
	}
}

// generations lets the original verify itself after the export, then the copy
// what the original has read beside its image, then copies of copies.
func generations(t *testing.T, p kerneltest.Program) {
	t.Helper()
	all := with(nil)
	c := kerneltest.Start(t, p)
	image, err := c.Export(true, all...)
	if err != nil {
		t.Fatal(err)
	}
	c.Verify()
	c.Stop()
	if c, err = c.Import(image, all...); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		c.Verify()
		if c, err = c.Next(all...); err != nil {
			t.Fatal(err)
		}
	}
	c.Verify()
}

func TestPairs(t *testing.T) { generations(t, kerneltest.Program{Source: "testdata/pairs.c"}) }

func TestPairsOfAnUnprivilegedUser(t *testing.T) {
	generations(t, kerneltest.Program{Source: "testdata/pairs.c", UID: 1000, GID: 1000})
}

func TestListeners(t *testing.T) {
	dir, err := os.MkdirTemp("", "mig")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	generations(t, kerneltest.Program{Source: "testdata/listeners.c", Args: []string{dir}})
}

// TestFlight: what is in flight, received and sent again by each generation.
func TestFlight(t *testing.T) {
	for _, uid := range []int{0, 1000} {
		p := kerneltest.Program{Source: "testdata/flight.c", UID: uid, GID: uid, Generations: 3, LeaveRunning: true}
		kerneltest.RoundTrip(t, p, with(nil)...)
	}
}

func TestDatagrams(t *testing.T) { generations(t, kerneltest.Program{Source: "testdata/datagrams.c"}) }

// TestNames: connections that came about by a name, of a file or an abstract one,
// with and without their listener.
func TestNames(t *testing.T) {
	dir, err := os.MkdirTemp("", "mig")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	generations(t, kerneltest.Program{Source: "testdata/names.c", Args: []string{dir}})
	left, err := os.ReadDir(dir)
	if err != nil || len(left) != 1 {
		t.Errorf("left are %v, %v", left, err)
	}
}

// TestInternet: datagrams, groups, filters, raw sockets.
func TestInternet(t *testing.T) {
	for _, running := range []bool{false, true} {
		kerneltest.RoundTrip(t, kerneltest.Program{Source: "testdata/inet.c", Generations: 3, LeaveRunning: running}, with(nil)...)
	}
}

func TestRefusedByName(t *testing.T) {
	for kind, why := range map[string]string{
		"pending": "its client has closed", "backlog": "wait to be accepted",
		"signed": "TCP_MD5SIG", "signed-listener": "TCP_MD5SIG", "multipath": "subflows",
	} {
		t.Run(kind, func(t *testing.T) {
			c := kerneltest.Start(t, kerneltest.Program{Source: "testdata/refused.c", Args: []string{kind}})
			_, err := c.Export(true, with(nil)...)
			if err == nil || !strings.Contains(err.Error(), why) || !strings.Contains(err.Error(), "fd 3") {
				t.Fatalf("export says: %v", err)
			}
			c.Verify()
		})
	}
}

// TestPackets: sockets of packet(7). An original that runs on in the same network
// would be in its copy's fan-out group, and is not here.
func TestPackets(t *testing.T) {
	kerneltest.RoundTrip(t, kerneltest.Program{Source: "testdata/packet.c", Generations: 3}, with(nil)...)
	c := kerneltest.Start(t, kerneltest.Program{Source: "testdata/packet.c", Allowed: &kerneltest.Allowed{Bounding: (1<<41 - 1) &^ (1 << unix.CAP_NET_RAW)}})
	if _, err := c.Next(with(nil)...); err == nil || !strings.Contains(err.Error(), "CAP_NET_RAW") {
		t.Errorf("without CAP_NET_RAW the import says: %v", err)
	}
	for kind, why := range map[string]string{"ring": "PACKET_RX_RING", "program": "PACKET_FANOUT_CBPF"} {
		c := kerneltest.Start(t, kerneltest.Program{Source: "testdata/packet.c", Args: []string{kind}})
		_, err := c.Export(true, with(nil)...)
		if err == nil || !strings.Contains(err.Error(), why) || !strings.Contains(err.Error(), "fd 3") {
			t.Errorf("export says: %v", err)
		}
		c.Verify()
	}
}

// TestLossesAreSaid: what is carried with a loss has a warning, and what is
// whole has none.
func TestLossesAreSaid(t *testing.T) {
	for kind, why := range map[string]string{"unread": "datagrams", "named": "", "left": ""} {
		t.Run(kind, func(t *testing.T) {
			c := kerneltest.Start(t, kerneltest.Program{Source: "testdata/refused.c", Args: []string{kind}})
			found := preflight(t, c, nil)
			if why == "" {
				if len(found) > 0 {
					t.Errorf("findings: %v", found)
				}
				return
			}
			if len(found) != 1 || !found[0].Warning || found[0].FD != 3 || !strings.Contains(found[0].Why, why) {
				t.Fatalf("findings: %v", found)
			}
			if _, err := c.Next(with(nil)...); err != nil {
				t.Error(err)
			}
		})
	}
}

// TestBacklogIsResetByPolicy: what is refused otherwise is said.
func TestBacklogIsResetByPolicy(t *testing.T) {
	c := kerneltest.Start(t, kerneltest.Program{Source: "testdata/refused.c", Args: []string{"backlog"}})
	policy := map[string]string{socket.OptionTCP: socket.TCPClose}
	found := preflight(t, c, policy)
	if len(found) != 1 || !found[0].Warning || !strings.Contains(found[0].Why, "1 connections") {
		t.Fatalf("findings: %v", found)
	}
	if _, err := c.Next(with(policy)...); err != nil {
		t.Error(err)
	}
}

// preflight asks the subsystem alone.
func preflight(t *testing.T, c *kerneltest.Container, options map[string]string) []record.Finding {
	t.Helper()
	source, err := target.NewSource(c.Pid, c.Freezer, c.Stdio)
	if err != nil {
		t.Fatal(err)
	}
	found, err := socket.New(target.Env{Source: source, Options: options}).Preflight(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return found
}
