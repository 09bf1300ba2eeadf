// SPDX-License-Identifier: Apache-2.0

package pipe

import (
	"context"
	"fmt"
	"net/url"
	"sync"

	"github.com/io-mig/mig/layers/medium"
)

// Hub opens pipes by name for medium.Manager: the two ends of "pipe:NAME" find
// each other by the name, in either order. The zero value is ready.
type Hub struct {
	mu      sync.Mutex
	waiting map[string]*half
}

// half is a pipe of which one end has been opened.
type half struct {
	w, r medium.Medium
	want medium.Direction
}

// Open is a medium.Opener.
func (h *Hub) Open(_ context.Context, address *url.URL, d medium.Direction) (medium.Medium, error) {
	name := address.Opaque
	if name == "" {
		return nil, fmt.Errorf("address %q: a pipe has a name, pipe:NAME", address)
	}
	if d != medium.Write && d != medium.Read {
		return nil, fmt.Errorf("%s: %w: %s", address, medium.ErrDirection, d)
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	p := h.waiting[name]
	if p == nil {
		p = &half{want: medium.Read}
		if d == medium.Read {
			p.want = medium.Write
		}
		p.w, p.r = New(DefaultBound)
		if h.waiting == nil {
			h.waiting = map[string]*half{}
		}
		h.waiting[name] = p
		return h.end(name, p, d), nil
	}
	if d != p.want {
		return nil, fmt.Errorf("%s: its end to %s is open already: %w", address, d, medium.ErrInUse)
	}
	delete(h.waiting, name)
	return h.end(name, p, d), nil
}

// end is one end of p, which forgets the name when it is closed alone.
func (h *Hub) end(name string, p *half, d medium.Direction) medium.Medium {
	m := p.w
	if d == medium.Read {
		m = p.r
	}
	return &named{Medium: m, forget: func() {
		h.mu.Lock()
		defer h.mu.Unlock()
		if h.waiting[name] == p {
			delete(h.waiting, name)
		}
	}}
}

type named struct {
	medium.Medium
	forget func()
}

func (n *named) Close() error {
	n.forget()
	return n.Medium.Close()
}
