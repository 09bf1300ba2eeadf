// SPDX-License-Identifier: Apache-2.0

package move

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/io-mig/mig/integration/bench/driver"
)

// Order is how a container is to be moved.
type Order struct {
	Strategy  string
	Transport Transport
	Flags     []string // more, of mig migrate
}

// Report is what the benchmark needs of what mig migrate --json prints.
type Report struct {
	Moved      bool
	Strategy   string
	Bytes      uint64
	Rounds     []struct{ Bytes uint64 }
	DowntimeMS float64        `json:"downtime_ms"`
	TotalMS    float64        `json:"total_ms"`
	States     []driver.Phase // of the source's engine
	Failure    *struct{ Kind, Text string }
	// Raw is all that it printed.
	Raw json.RawMessage `json:"-"`
}

// Downtime is how long the container was stopped, as mig has it.
func (r *Report) Downtime() time.Duration { return time.Duration(r.DowntimeMS * 1e6) }

// Total is the whole command, as mig has it.
func (r *Report) Total() time.Duration { return time.Duration(r.TotalMS * 1e6) }

// Switched is when the copy ran, as the source knows; zero if it says nothing of
// that.
func (r *Report) Switched() time.Time {
	for _, s := range r.States {
		if s.State == "decided" {
			return s.At
		}
	}
	return time.Time{}
}

// Spent is how long the source's engine was in a state, of all times it was.
func (r *Report) Spent(state string) (spent time.Duration) {
	for i := range max(0, len(r.States)-1) {
		if r.States[i].State == state {
			spent += r.States[i+1].At.Sub(r.States[i].At)
		}
	}
	return spent
}

// interruptPatience is how long an interrupted mig may take to undo.
const interruptPatience = 10 * time.Second

// Move moves a container from the one host to the other, or says why not.
func (w *World) Move(ctx context.Context, id string, o Order) (*Report, error) {
	return w.move(ctx, w.From, w.To, id, o)
}

func (w *World) move(ctx context.Context, from, to *Host, id string, o Order) (*Report, error) {
	args := append([]string{
		"migrate", "--json", "-n", from.d.Namespace, "--containerd", from.d.Address,
		"--state", filepath.Join(from.d.Dir, "state"), "--strategy", o.Strategy,
	}, from.identity(o.Transport)...)
	args = append(append(args, o.Flags...), id, to.address(o.Transport))
	cmd := from.Command(ctx, w.tree.Bin("mig"), args...)
	// An interrupted mig undoes the move and says where it stood.
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	cmd.WaitDelay = interruptPatience
	var out, says bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &says
	ran := cmd.Run()
	if ctx.Err() != nil {
		ran = fmt.Errorf("no end in time: %w", ran)
	}
	r := &Report{Raw: bytes.Clone(out.Bytes())}
	if err := json.Unmarshal(out.Bytes(), r); err != nil {
		return nil, fmt.Errorf("mig migrate of %s: %w: %w: %s%s", id, ran, err, out.String(), says.String())
	}
	switch {
	case ran != nil:
		return r, fmt.Errorf("mig migrate of %s: %w: %s", id, ran, strings.TrimSpace(says.String()))
	case r.Failure != nil || !r.Moved:
		return r, fmt.Errorf("mig migrate of %s did not move it: %+v", id, r.Failure)
	}
	return r, nil
}
