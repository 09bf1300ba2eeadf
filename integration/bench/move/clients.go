// SPDX-License-Identifier: Apache-2.0

package move

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"

	"github.com/io-mig/mig/integration/internal/repo"
	"github.com/io-mig/mig/integration/internal/traffic"
)

// serverID is the container that clients talk to.
const serverID = "server"

// firstIP is the last number of the first server's address in the lab's network. Each
// has another one: the clients' host remembers the hardware address of the last one.
const firstIP = 50

// Clients is a World with a third host, whose clients are at work on a server in a
// container that is moved there and back.
type Clients struct {
	*World
	client traffic.Client
	// on is where the server runs.
	on     *Host
	served int             // servers so far
	loaded map[string]bool // images by their names
}

// NewClients makes the hosts. dir is an existing directory for scratch files. The
// caller must Close it.
func NewClients(ctx context.Context, tree repo.Tree, dir string) (*Clients, error) {
	w := &World{tree: tree, dir: dir, transports: []Transport{TLS}}
	if err := w.open(ctx, "alpha", "beta", "client"); err != nil {
		return nil, err
	}
	for _, h := range w.hosts() {
		if err := h.Bridge(); err != nil {
			return nil, errors.Join(err, w.Close())
		}
	}
	return &Clients{World: w, client: traffic.Client{Host: w.lab.Hosts[2], Dir: filepath.Clean(dir)}, loaded: map[string]bool{}}, nil
}

// Serve runs a server on the one host, in a network of its own, and has clients at
// work on it. The caller closes the load and calls Remove.
func (c *Clients) Serve(ctx context.Context, s traffic.Server) (traffic.Load, error) {
	if !c.loaded[s.Image.Name] { // made anew it would be another one, by its digest
		if err := c.load(ctx, s.Image); err != nil {
			return nil, err
		}
		c.loaded[s.Image.Name] = true
	}
	ip := fmt.Sprintf("10.77.0.%d", firstIP+c.served)
	c.on, c.image, c.served = c.From, s.Image, c.served+1
	if err := c.Run(ctx, serverID, s.Command); err != nil {
		return nil, err
	}
	pid, err := c.on.FirstPid(ctx, serverID)
	if err != nil {
		return nil, err
	}
	if err := c.on.Wire(pid, "to-"+serverID, ip); err != nil {
		return nil, err
	}
	if err := c.client.Listens(ctx, fmt.Sprintf("%s:%d", ip, s.Port)); err != nil {
		return nil, err
	}
	return s.Work(ctx, c.client, ip)
}

// Move moves the server to the other host.
func (c *Clients) Move(ctx context.Context) (*Report, error) {
	to := c.To
	if c.on == c.To {
		to = c.From
	}
	r, err := c.move(ctx, c.on, to, serverID, Order{Strategy: "auto", Transport: TLS, Flags: []string{"--tcp", "keep"}})
	if err == nil {
		c.on = to
	}
	return r, err
}

// Remove ends the server.
func (c *Clients) Remove(ctx context.Context) error { return c.World.Remove(ctx, serverID) }
