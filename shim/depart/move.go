// SPDX-License-Identifier: Apache-2.0

package depart

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"syscall"
	"time"

	"github.com/io-mig/mig/layers/control"
	"github.com/io-mig/mig/layers/control/handover"
	"github.com/io-mig/mig/layers/request/job"
	"github.com/io-mig/mig/layers/request/outgoing"
	"github.com/io-mig/mig/layers/request/peer"
	"github.com/io-mig/mig/layers/request/policy"
	"github.com/io-mig/mig/layers/request/resolve/question"
	"github.com/io-mig/mig/shim/host"
	"github.com/io-mig/mig/spec/network"
	"github.com/io-mig/mig/spec/record"
	"github.com/io-mig/mig/spec/wire"
)

// mover is one move under way.
type mover struct {
	o      Options
	token  wire.Token
	source *host.Source
	client *peer.Client
	answer *peer.Answer
	// cut: the connection to the destination's migd ended before the outcome was told.
	cut bool
	// confirmed: the destination's migd has said that the copy is a container like any
	// other there.
	confirmed bool
	// release frees what is held on this host for the move; may be nil.
	release func() error
	report  Report
}

// Move moves a container. The report is filled as far as the move came, also
// beside an error. Before the commit every error leaves the container running
// here; the report says whether it has moved.
func Move(ctx context.Context, o Options) (*Report, error) {
	m := &mover{o: o, token: wire.NewToken()}
	r := &m.report
	r.Started = time.Now()
	err := m.move(ctx)
	m.phase("")
	r.TotalMS = ms(time.Since(r.Started))
	r.Failure = job.FailureOf(err)
	if r.Rounds == nil {
		r.Rounds = []Round{}
	}
	return r, err
}

func (m *mover) move(ctx context.Context) error {
	r := &m.report
	r.Namespace, r.Container, r.Destination, r.Strategy = m.o.Namespace, m.o.Container, m.o.address(), m.o.Strategy
	if err := m.o.valid(); err != nil {
		return err
	}
	if m.o.Token != "" {
		var err error
		if m.token, err = wire.ParseToken(m.o.Token); err != nil {
			return err
		}
	}
	r.Token, r.Source = m.token.String(), m.o.Host.Self(m.o.Tool).Name
	lock, err := m.o.Host.LockMove(m.o.Namespace, m.o.Container)
	if errors.Is(err, syscall.EADDRINUSE) {
		return fmt.Errorf("another mig migrate moves container %s at this moment (mig status shows it)", m.o.Container)
	}
	if err != nil {
		return err
	}
	defer lock.Close()
	for _, step := range []struct {
		phase Phase
		do    func(context.Context) error
	}{
		{PhasePreflight, m.preflight}, {PhaseOffer, m.negotiate}, {PhaseImage, m.copyImage},
		{PhasePrepare, m.prepare}, {PhaseMove, m.transfer}, {PhaseCleanUp, m.cleanUp},
	} {
		if ctx.Err() != nil && !r.Moved {
			err = context.Cause(ctx)
			break
		}
		m.phase(step.phase)
		if err = step.do(ctx); err != nil {
			break
		}
	}
	var up *givenUpError
	if err != nil && ctx.Err() != nil && !r.Moved && !errors.As(err, &up) {
		err = &givenUpError{container: m.o.Container, why: context.Cause(ctx), here: err}
	}
	if m.client != nil {
		_ = m.client.Close() // everything was said; a peer that is gone makes noise here
	}
	if err != nil && !r.Moved && m.source != nil && m.ended(ctx) {
		err = m.gone(ctx, err)
	} else if errors.As(err, &up) {
		up.runs = m.source != nil
	} else if err != nil && !r.Moved && m.cut {
		err = fmt.Errorf("the connection to %s was lost (move the container again when it is back): %w", r.Destination, err)
	}
	if m.release != nil {
		err = errors.Join(err, m.release())
	}
	return err
}

// ask asks the destination what became of the copy, over a connection of its own.
func (m *mover) ask(ctx context.Context) (handover.Message, bool, error) {
	return question.AskWhole(ctx, m.o.move(m.token))
}

// gone is the error of a move that has failed here, and whose container does not run here
// any more. Where the destination was cut off before it told the outcome, it is asked: the
// shim that would have done so has died with the container, whose copy may run.
func (m *mover) gone(ctx context.Context, err error) error {
	gone := fmt.Errorf("container %s does not run here any more: %w", m.o.Container, err)
	if !m.cut {
		return gone
	}
	unknown := confirm(ctx, m.ask, lastWords)
	if unknown == nil {
		m.report.Moved, m.confirmed = true, true
		return m.unended(err)
	}
	return fmt.Errorf("%w; whether its copy runs on %s has to be looked at there (mig status): %w", gone, m.report.Destination, unknown)
}

// unended is the error of a move whose copy runs, and whose original the source's shim
// has not ended as it should.
func (m *mover) unended(err error) error {
	return fmt.Errorf("the copy of container %s runs on %s, but the source's shim could not end the original: %w (mig status shows it; do not start it again)",
		m.o.Container, m.report.Destination, err)
}

// ended: the container does not run any more, which is why it was not moved, as a
// rule. Its first process may have ended before containerd hears of it: such a one,
// reaped or not, has no namespaces (ns_get_name in fs/nsfs.c).
func (m *mover) ended(ctx context.Context) bool {
	if _, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/uts", m.source.Pid)); m.source.Pid > 0 && errors.Is(err, fs.ErrNotExist) {
		return true
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
	defer cancel()
	running, err := m.o.Host.Running(ctx, m.o.Namespace)
	return err == nil && !slices.Contains(running, m.o.Container)
}

// phase ends one phase and begins the next.
func (m *mover) phase(p Phase) {
	now := time.Now()
	if n := len(m.report.Phases); n > 0 {
		last := &m.report.Phases[n-1]
		last.MS = ms(now.Sub(last.Started))
	}
	if p != "" {
		m.report.Phases = append(m.report.Phases, Span{Phase: p, Started: now})
		m.tell(Progress{Phase: p})
	}
}

func (m *mover) tell(p Progress) {
	if m.o.Observe != nil {
		m.o.Observe(p)
	}
}

// preflight reads the container and asks the engine what is in the way.
func (m *mover) preflight(ctx context.Context) error {
	var err error
	if m.source, err = m.o.Host.Read(ctx, m.o.Namespace, m.o.Container); err != nil {
		return err
	}
	if m.source.Paused {
		return fmt.Errorf("container %s is paused, and its copy would run: resume it first", m.o.Container)
	}
	m.source.Container.Streams.LogURI = m.o.LogURI
	if err := m.cni(); err != nil {
		return err
	}
	m.source.Container.Policies = m.o.Policies
	if err := m.base(ctx); err != nil {
		return err
	}
	bundle, err := m.o.Host.Bundle(m.o.State, m.source)
	if err != nil {
		return err
	}
	found, err := m.o.Check(ctx, bundle, m.o.Namespace, m.o.Container, m.o.move(m.token))
	if err != nil {
		return fmt.Errorf("check container %s: %w", m.o.Container, err)
	}
	if m.source.Container.Network, err = m.o.Network(bundle, m.o.Namespace, m.o.Container, m.o.move(m.token)); err != nil {
		return fmt.Errorf("network of container %s: %w", m.o.Container, err)
	}
	if err := unmapped(m.o.Policies[policy.MapIP], m.source.Container.Network); err != nil {
		return err
	}
	var refused []record.Finding
	for _, f := range found {
		if f.Warning {
			m.report.Warnings = append(m.report.Warnings, f.String())
		} else {
			refused = append(refused, f)
		}
	}
	if len(refused) > 0 {
		m.report.Findings = refused
		return &control.PreflightError{Findings: refused}
	}
	return nil
}

// cni names the interfaces that CNI has made, unless somebody has. Who had it make
// them, a client or a hook of the container's own (nerdctl), is the same here.
func (m *mover) cni() error {
	if m.o.Policies[policy.CNI] != "" || m.source.Spec.Annotations["io.mig/"+policy.CNI] != "" {
		return nil
	}
	networks, err := m.o.CNI.Networks(m.o.Namespace, m.o.Container)
	if err != nil || len(networks) == 0 {
		return err
	}
	m.o.Policies = policy.Add(m.o.Policies, map[string]string{policy.CNI: network.EncodeCNI(networks)})
	return nil
}

// base names the directory with which a root that is no overlay is compared.
func (m *mover) base(ctx context.Context) error {
	if m.o.Policies[policy.RootfsBase] != "" || m.source.Spec.Annotations["io.mig/"+policy.RootfsBase] != "" {
		return nil
	}
	dir, release, err := m.o.Host.Base(ctx, m.source, m.token.String())
	if err != nil {
		return err
	}
	m.release = release
	if dir != "" {
		m.o.Policies = policy.Add(m.o.Policies, map[string]string{policy.RootfsBase: dir})
	}
	return nil
}

// negotiate asks the destination.
func (m *mover) negotiate(ctx context.Context) error {
	conn, err := outgoing.Dial(ctx, m.o.move(m.token), wire.Control)
	if err != nil {
		return m.unreached(fmt.Errorf("reach migd: %w", err))
	}
	self := m.o.Host.Self(m.o.Tool)
	c := peer.NewConn(conn)
	if m.client, err = peer.Meet(c, self); err != nil {
		_ = c.Close() // with an error it is closed already, or makes noise
		return m.unreached(err)
	}
	if m.client.Peer.ID == self.ID {
		return fmt.Errorf("%s is the host that container %s is on (%s): name another", m.o.Destination, m.o.Container, self.Name)
	}
	m.report.Destination = m.client.Peer.Name
	state, err := m.o.Describe(m.o.Container, m.source.Spec)
	if err != nil {
		return err
	}
	s := m.source
	m.answer, err = m.client.Offer(&peer.Offer{
		Token: m.token.String(), Namespace: s.Namespace, Container: s.Container, State: *state, Medium: Medium,
		CgroupVersion: host.CgroupVersion(), Memory: s.Memory, Strategy: m.o.Strategy,
	})
	if err != nil {
		return err
	}
	m.report.Warnings = append(m.report.Warnings, m.answer.Warnings...)
	return nil
}

// copyImage sends the blobs that the destination lacks.
func (m *mover) copyImage(ctx context.Context) error {
	p := Progress{Phase: PhaseImage}
	byDigest := map[string]peer.Descriptor{}
	for _, b := range m.source.Container.Image.Blobs {
		byDigest[string(b.Digest)] = b.Descriptor
	}
	for _, w := range m.answer.Wanted {
		b, ok := byDigest[string(w.Digest)]
		if !ok || w.Offset > b.Size {
			return fmt.Errorf("%w: it wants %s from %d, which is no part of the image", peer.ErrProtocol, w.Digest, w.Offset)
		}
		p.Total += uint64(b.Size - w.Offset)
	}
	m.tell(p)
	began := time.Now()
	for _, w := range m.answer.Wanted {
		b := byDigest[string(w.Digest)]
		r, err := m.o.Host.Open(ctx, m.source.Namespace, b, w.Offset)
		if err != nil {
			return err
		}
		err = m.client.Put(ctx, peer.Blob{Digest: b.Digest, Offset: w.Offset, Size: b.Size}, r, func(n int) {
			p.Bytes += uint64(n)
			m.report.ImageBytes = p.Bytes
			m.tell(p)
			pace(ctx, p.Bytes, m.o.Bandwidth, began)
		})
		if err := errors.Join(err, r.Close()); err != nil {
			return fmt.Errorf("copy the image to %s: %w", m.report.Destination, err)
		}
	}
	return nil
}

// pace waits until so many bytes may have been sent since the beginning.
func pace(ctx context.Context, sent, perSecond uint64, began time.Time) {
	if perSecond == 0 {
		return
	}
	due := time.Duration(float64(sent) / float64(perSecond) * float64(time.Second))
	select {
	case <-time.After(due - time.Since(began)):
	case <-ctx.Done():
	}
}

func (m *mover) prepare(ctx context.Context) error {
	// Prepare cannot be interrupted but by the connection's end, which the
	// destination takes for an abort.
	defer context.AfterFunc(ctx, func() { _ = m.client.Abort(context.Cause(ctx)) })()
	_, err := m.client.Prepare()
	return err
}

// cleanUp removes what has left.
func (m *mover) cleanUp(ctx context.Context) error {
	if m.o.Keep {
		return nil
	}
	if !m.confirmed {
		if err := confirm(ctx, m.ask, lastWords); err != nil {
			return fmt.Errorf("container %s runs on %s, but that has not confirmed it, so what it left here is kept (remove it by hand when you see it there): %w", m.o.Container, m.report.Destination, err)
		}
	}
	if err := m.o.Host.Remove(ctx, m.o.Namespace, m.o.Container); err != nil {
		return fmt.Errorf("container %s runs on %s, but what it left here could not be removed (remove it by hand): %w", m.o.Container, m.report.Destination, err)
	}
	m.report.Removed = true
	if err := m.o.CNI.Disconnect(ctx, m.o.Namespace, m.o.Container, nil); err != nil {
		m.report.Warnings = append(m.report.Warnings, err.Error())
	}
	return nil
}
