// SPDX-License-Identifier: Apache-2.0

package arrive

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/io-mig/mig/layers/request/job"
	"github.com/io-mig/mig/layers/request/journal"
	"github.com/io-mig/mig/layers/request/peer"
	"github.com/io-mig/mig/layers/request/policy"
	"github.com/io-mig/mig/shim/host"
	"github.com/io-mig/mig/spec/network"
	"github.com/io-mig/mig/spec/wire"
)

// move is one container on its way here. The server of the conversation calls
// it from one goroutine at a time.
type move struct {
	d      *Daemon
	source peer.Host
	// from is who has authenticated itself as the source, identity.Name.
	from  string
	began time.Time
	offer *peer.Offer

	entered  bool           // guarded by d.mu
	reserved host.Resources // guarded by d.mu

	// touched: there may be something to undo.
	touched  bool
	prepared bool
	copy     *host.Copy
	forget   func()
	// volumes are directories that were made for the container.
	volumes []string
	end     *peer.End
	// left: not everything could be undone, or finished.
	left bool
	// unknown: nobody could tell yet whether the copy runs, so nothing may be undone.
	unknown bool
}

// Consider implements peer.Destination.
func (m *move) Consider(ctx context.Context, o *peer.Offer) (*peer.Answer, error) {
	m.offer = o
	d := m.d
	if to := d.opts.Snapshotters[o.Container.Snapshot.Snapshotter]; to != "" {
		o.Container.Snapshot.Snapshotter = to
	}
	if taken := d.enter(m); taken != nil {
		return &peer.Answer{Mismatches: []peer.Mismatch{*taken}}, nil
	}
	if m.source.ID == d.self().ID {
		return &peer.Answer{Mismatches: []peer.Mismatch{{What: "destination", Why: "this is the host that the container is on", Remedy: "name another"}}}, nil
	}
	if used, err := d.used(o.Token); used || err != nil {
		return &peer.Answer{Mismatches: []peer.Mismatch{{What: "token", Why: fmt.Sprintf("there was a move %s to this host already", o.Token), Remedy: "ask for another token, or for none"}}}, err
	}
	a, err := d.opts.Host.Consider(ctx, o, d.taken())
	if err != nil {
		return nil, err
	}
	if !d.allowed(o.Namespace) {
		a.Mismatches = append(a.Mismatches, peer.Mismatch{What: "namespace", Remedy: "migd --namespace " + o.Namespace,
			Why: fmt.Sprintf("containers may come to %s, not to %s", strings.Join(d.opts.Namespaces, ", "), o.Namespace)})
	}
	if !slices.Contains(d.opts.Media, o.Medium) {
		a.Mismatches = append(a.Mismatches, peer.Mismatch{What: "medium", Why: fmt.Sprintf("the state would come by %s, this mig reads %s", o.Medium, strings.Join(d.opts.Media, ", "))})
	}
	if err := d.opts.Mismatches(&o.State); err != nil {
		for _, e := range unjoin(err) {
			a.Mismatches = append(a.Mismatches, peer.Mismatch{What: "engine", Why: e.Error()})
		}
	}
	found, err := d.opts.Network(o.Container.Network, o.Container.Policies)
	if err != nil {
		return nil, fmt.Errorf("network of container %s: %w", o.Container.ID, err)
	}
	a.Mismatches = append(a.Mismatches, found...)
	if !host.HasHooks(o.Container.Spec) { // they know where they have their networks
		for _, p := range d.opts.CNI.Consider(o.Container.Network) {
			a.Mismatches = append(a.Mismatches, peer.Mismatch{What: p.What, Why: p.Why, Remedy: p.Remedy})
		}
	}
	d.reserve(m, host.Needs(o, a.Wanted, false))
	return a, nil
}

// used tells whether an engine of this host has had a move with this token: what is left
// of that would be taken for the new one's.
func (d *Daemon) used(text string) (bool, error) {
	token, err := wire.ParseToken(text)
	if err != nil {
		return false, err
	}
	_, err = journal.Read(d.journals, token, journal.Destination)
	return !errors.Is(err, fs.ErrNotExist), nil // one that cannot be read is one
}

// unjoin returns the parts of a joined error.
func unjoin(err error) []error {
	if j, ok := err.(interface{ Unwrap() []error }); ok { //nolint:errorlint // the error itself is joined
		return j.Unwrap()
	}
	return []error{err}
}

// Store implements peer.Destination.
func (m *move) Store(ctx context.Context, b *peer.Blob, r io.Reader) error {
	m.touched = true
	counted := counter{r, m.d.opts.Observer}
	return m.d.opts.Host.Store(ctx, m.offer.Namespace, m.offer.Container.ID, m.offer.Token, b, counted)
}

type counter struct {
	io.Reader
	to Observer
}

func (c counter) Read(p []byte) (int, error) {
	n, err := c.Reader.Read(p)
	c.to.Copied(n)
	return n, err
}

// Prepare implements peer.Destination.
func (m *move) Prepare(ctx context.Context) (*peer.Prepared, error) {
	m.touched, m.prepared = true, true
	token, err := wire.ParseToken(m.offer.Token)
	if err != nil {
		return nil, err
	}
	socket, forget, err := m.d.opts.Acceptor.Expect(token)
	if err != nil {
		return nil, err
	}
	m.forget = forget
	if n := m.offer.Container.Network; n != nil {
		n.Guard, n.Move = "", nameOf(m.offer.Token)
		if n.CNI() {
			n.Guard = nameOf(m.offer.Token)
			// Hooks that have CNI connect the copy run when it is made.
			if err := m.d.opts.Guard(n, m.offer.Container.Policies); err != nil {
				return nil, err
			}
		}
	}
	if m.volumes, err = host.MakeVolumes(m.offer); err != nil {
		return nil, err
	}
	m.copy, err = m.d.opts.Host.Make(ctx, m.offer, host.Incoming{Socket: socket, TLS: m.d.opts.TLS, From: m.from})
	if err != nil {
		return nil, err
	}
	if err := m.connect(ctx); err != nil {
		return nil, err
	}
	return &peer.Prepared{Pid: m.copy.Pid()}, nil
}

// connect has CNI connect the frame, as containerd's clients have a created task
// connected before it starts. What hooks of its own have made stays.
func (m *move) connect(ctx context.Context) error {
	c := &m.offer.Container
	mapping, err := network.ParseMapping(c.Policies[policy.MapIP])
	if err != nil {
		return err
	}
	if c.Network == nil || !c.Network.CNI() {
		return nil
	}
	return m.d.opts.CNI.Connect(ctx, m.offer.Namespace, c.ID, m.copy.Pid(), c.Network, mapping)
}

// nameOf names what a move makes on this host: its guard, its interfaces.
func nameOf(token string) string { return token[:min(len(token), 12)] }

// reportEvery is how often the source hears of the progress, and how often
// somebody's wish to cancel is looked for.
const reportEvery = 200 * time.Millisecond

// Await implements peer.Destination.
func (m *move) Await(ctx context.Context, report func(job.Progress)) *peer.End {
	started := make(chan error, 1)
	// Its end tells whether the copy runs, so it is awaited whatever the source
	// does meanwhile.
	go func() { started <- m.copy.Start(context.WithoutCancel(ctx)) }()
	restore := m.d.restoreOf(m.offer.Namespace, m.offer.Container.ID, m.offer.Token)
	tick := time.NewTicker(reportEvery)
	defer tick.Stop()
	for {
		select {
		case err := <-started:
			m.end = m.ended(ctx, restore, err)
			return m.end
		case <-tick.C:
		}
		if st, err := restore.status(); err == nil {
			report(st.Progress)
		}
		if why := context.Cause(ctx); why != nil {
			if errors.Is(why, peer.ErrEnding) && restore.filling() {
				// The next daemon waits for its end, and finishes it.
				m.left, m.end = true, &peer.End{Pid: m.copy.Pid(), Running: true}
				return m.end
			}
			if err := restore.giveUp(why); err != nil {
				m.d.opts.Log.Warn("cancel a move", "token", m.offer.Token, "error", err)
			}
		}
	}
}

// ended turns the answer of Start into the outcome.
func (m *move) ended(ctx context.Context, restore *restore, err error) *peer.End {
	end := &peer.End{Pid: m.copy.Pid()}
	if err != nil {
		err = m.fate(ctx, restore, err)
	}
	if st, serr := restore.status(); serr == nil {
		end.Last = st.Progress.Bounded()
		switch {
		case err == nil || st.Failure == nil:
		case strings.Contains(err.Error(), job.WantOfMemory):
			err = fmt.Errorf("%s: %w", job.WantOfMemory, st.Failure)
		default:
			err = st.Failure
		}
	}
	if err != nil {
		end.Failure = job.FailureOf(err)
		return end
	}
	end.Running = true
	m.finish(ctx)
	return end
}

// fate is nil if the copy runs though the call to start it has failed. Such an error is
// not yet one of the restore: containerd may have died meanwhile. The shim's own record
// and the journal decide. Where they cannot be read nobody knows, and nothing is undone:
// the copy may be the only one.
func (m *move) fate(ctx context.Context, restore *restore, err error) error {
	running, told := restore.await(ctx)
	switch {
	case told != nil:
		m.unknown = true
		return errors.Join(err, told)
	case running:
		return nil
	}
	return err
}

// finish takes the marks of a move off. The copy runs whether that works or not.
func (m *move) finish(ctx context.Context) {
	err := m.d.opts.Host.Finish(context.WithoutCancel(ctx), m.offer.Namespace, m.offer.Container.ID, m.offer.Token)
	if err != nil {
		m.left = true
		m.d.opts.Log.Warn("the copy runs, but still bears the marks of its move", "token", m.offer.Token, "error", err)
	}
}

// Undo implements peer.Destination.
func (m *move) Undo(reason error) error {
	m.leaveAcceptor()
	if !m.touched {
		return nil
	}
	if m.unknown {
		m.left = true
		return errors.New("it is not known yet whether the copy runs: that is seen to when it is")
	}
	// What was copied is of use to the next attempt if this one was cut off while
	// it copied.
	keep := !m.prepared && (errors.Is(reason, peer.ErrAborted) || errors.Is(reason, peer.ErrEnding))
	var disconnected error
	if m.prepared {
		disconnected = errors.Join(m.d.opts.Unguard(nameOf(m.offer.Token)), m.d.opts.Unplug(nameOf(m.offer.Token)), m.d.opts.CNI.Disconnect(context.Background(), m.offer.Namespace, m.offer.Container.ID, m.offer.Container.Network))
	}
	err := m.d.opts.Host.Discard(context.Background(), m.offer.Namespace, m.offer.Container.ID, m.offer.Token, keep)
	m.left = err != nil || disconnected != nil
	if err == nil { // otherwise the container may still have them mounted
		for _, dir := range m.volumes {
			err = errors.Join(err, os.RemoveAll(dir))
		}
	}
	return errors.Join(err, disconnected)
}

func (m *move) leaveAcceptor() {
	if m.forget != nil {
		m.forget()
		m.forget = nil
	}
}

// leave frees what the move held.
func (m *move) leave() {
	m.leaveAcceptor()
	if m.offer != nil {
		m.d.leave(m)
	}
}

func (m *move) outcome(err error) Outcome {
	o := Outcome{Source: m.source.Name, Took: time.Since(m.began), Err: err, Refused: peer.IsRefused(err)}
	if m.offer != nil {
		o.Token, o.Namespace, o.Container = m.offer.Token, m.offer.Namespace, m.offer.Container.ID
	}
	if m.end != nil {
		o.Running, o.Bytes, o.Downtime = m.end.Running, m.end.Last.Bytes, m.end.Last.Downtime
	}
	return o
}
