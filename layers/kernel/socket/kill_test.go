// SPDX-License-Identifier: Apache-2.0

package socket_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/io-mig/mig/layers/kernel/kerneltest"
	"github.com/io-mig/mig/layers/kernel/socket"
	"github.com/io-mig/mig/layers/kernel/target"
	"github.com/io-mig/mig/layers/kernel/tcprepair"
	"github.com/io-mig/mig/spec/record"
)

// engineEnv marks a test binary that was started as an engine: "PID FREEZER".
const engineEnv = "MIG_SOCKET_ENGINE"

func TestMain(m *testing.M) {
	if role := os.Getenv(engineEnv); role != "" {
		fmt.Fprintln(os.Stderr, engine(role))
		os.Exit(3)
	}
	os.Exit(m.Run())
}

// engine exports the sockets of a container again and again.
func engine(role string) error {
	id, dir, _ := strings.Cut(role, " ")
	pid, err := strconv.Atoi(id)
	if err != nil {
		return err
	}
	freezer, err := target.NewFreezer(dir)
	if err != nil {
		return err
	}
	fmt.Println("x")
	for {
		if err := exportOnce(pid, freezer); err != nil {
			return err
		}
	}
}

func exportOnce(pid int, freezer *target.Freezer) error {
	ctx := context.Background()
	source, err := target.NewSource(pid, freezer, nil)
	if err != nil {
		return err
	}
	ids, err := source.Hold(ctx)
	if err != nil {
		return err
	}
	for _, id := range ids {
		if err := source.Process(id).Setup(ctx); err != nil {
			return err
		}
	}
	s := socket.New(target.Env{Source: source, Options: map[string]string{socket.OptionTCP: socket.TCPKeep}})
	_, err = s.Checkpoint(ctx, record.Step{Stage: record.StageResidual}, record.SinkFunc(func(context.Context, *record.Record) error { return nil }))
	if err != nil {
		return err
	}
	for _, id := range ids {
		if err := source.Process(id).Restart(ctx); err != nil {
			return err
		}
	}
	return source.Release(ctx)
}

// TestKilledEngine: whatever the moment at which the engine dies, what the shim
// then does gives the program its connections back: none is stuck, none has lost
// a byte or was reset.
func TestKilledEngine(t *testing.T) {
	kills := 100
	if testing.Short() {
		kills = 30
	}
	for name, p := range map[string]kerneltest.Program{
		"within":  {Source: "testdata/tcp.c"},
		"flight":  {Source: "testdata/flight.c"},
		"outside": {Source: "testdata/connection.c", Args: []string{echo(t)}},
	} {
		t.Run(name, func(t *testing.T) {
			c := kerneltest.Start(t, p)
			stuck := 0
			for i := range kills {
				if killEngine(t, c) {
					stuck++
				}
				if name != "within" || i%10 == 9 {
					c.Verify()
				}
			}
			t.Logf("in %d of %d kills connections were in repair mode or deaf", stuck, kills)
		})
	}
}

// killEngine lets an engine work for a moment, kills it and does what the shim
// does then. It tells whether there was something to undo.
func killEngine(t *testing.T, c *kerneltest.Container) bool {
	t.Helper()
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), fmt.Sprintf("%s=%d %s", engineEnv, c.Pid, c.Freezer.Dir()))
	var said strings.Builder
	cmd.Stderr = &said
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	if _, err := out.Read(make([]byte, 2)); err != nil {
		t.Fatalf("the engine says nothing: %v: %s", err, &said)
	}
	time.Sleep(rand.N(15 * time.Millisecond))
	_ = cmd.Process.Kill()
	_ = cmd.Wait()
	if said.Len() > 0 {
		t.Fatal(said.String())
	}
	pids, err := c.Freezer.Pids()
	if err != nil {
		t.Fatal(err)
	}
	n, err := tcprepair.Undo(pids)
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Freezer.Thaw(); err != nil {
		t.Fatal(err)
	}
	return n > 0
}
