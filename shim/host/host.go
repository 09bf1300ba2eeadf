// SPDX-License-Identifier: Apache-2.0

// Package host is containerd's client side of a move between hosts: it reads a
// container on the source, makes it on the destination up to a task whose frame
// waits for the container's state, and removes it again from either.
//
// It works with daemons of containerd 1.6 and newer. Everything that a move has
// made and not finished bears the move's token (LabelIncoming), so that whoever
// finds it, even after a crash, can remove it, and only it.
package host

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/pkg/namespaces"
	"golang.org/x/sys/unix"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"

	"github.com/io-mig/mig/layers/request/peer"
)

// reconnecting is how soon a connection to a containerd that was started anew is made
// again. By gRPC's own measure everything fails for up to ten seconds.
var reconnecting = grpc.ConnectParams{
	Backoff:           backoff.Config{BaseDelay: 50 * time.Millisecond, Multiplier: 1.5, Jitter: 0.2, MaxDelay: 200 * time.Millisecond},
	MinConnectTimeout: 10 * time.Second,
}

// restart is how long containerd is waited for that is being started anew.
const restart = 3 * time.Second

// awake waits until containerd serves, if it was started anew a moment ago. Whoever
// asks it next says what is wrong with one that does not come.
func (h *Host) awake(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, restart)
	defer cancel()
	_, _ = h.client.IsServing(ctx)
}

// Host is one containerd.
type Host struct {
	client  *client.Client
	address string
	id      string
}

// Dial connects to the containerd at a socket. The caller must Close.
func Dial(ctx context.Context, address string) (*Host, error) {
	address = strings.TrimPrefix(address, "unix://")
	if !filepath.IsAbs(address) {
		return nil, fmt.Errorf("containerd's socket %q is no absolute path", address)
	}
	// The client would wait for a socket to appear.
	if _, err := os.Stat(address); err != nil {
		return nil, fmt.Errorf("containerd's socket: %w (--containerd names another)", err)
	}
	c, err := client.New(address, client.WithExtraDialOpts([]grpc.DialOption{grpc.WithConnectParams(reconnecting)}))
	if err != nil {
		return nil, fmt.Errorf("connect to containerd at %s: %w", address, err)
	}
	h := &Host{client: c, address: address}
	server, err := c.Server(ctx)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("containerd at %s does not answer: %w", address, err), c.Close())
	}
	h.id = server.UUID
	return h, nil
}

// Close ends the connection.
func (h *Host) Close() error { return h.client.Close() }

// Self is what this host says of itself to others; the tool's version is the
// caller's.
func (h *Host) Self(tool string) peer.Host {
	name, err := os.Hostname()
	if err != nil {
		name = "unknown"
	}
	return peer.Host{ID: h.id, Name: name, Tool: tool}
}

// Namespaces lists containerd's.
func (h *Host) Namespaces(ctx context.Context) ([]string, error) {
	return h.client.NamespaceService().List(ctx)
}

func in(ctx context.Context, namespace string) context.Context {
	return namespaces.WithNamespace(ctx, namespace)
}

// daemon is containerd's process, as the other end of its socket.
func (h *Host) daemon() (int, error) {
	c, err := net.Dial("unix", h.address)
	if err != nil {
		return 0, err
	}
	defer c.Close()
	raw, err := c.(*net.UnixConn).SyscallConn()
	if err != nil {
		return 0, err
	}
	var cred *unix.Ucred
	cerr := raw.Control(func(fd uintptr) {
		cred, err = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	})
	if err := errors.Join(cerr, err); err != nil {
		return 0, fmt.Errorf("who serves %s: %w", h.address, err)
	}
	return int(cred.Pid), nil
}

// plugins returns an export of every plugin of a type that works, by the
// plugin's id: "root" is the directory where a snapshotter or the content store
// keeps its files.
func (h *Host) plugins(ctx context.Context, kind, export string) (map[string]string, error) {
	r, err := h.client.IntrospectionService().Plugins(ctx, "type=="+kind)
	if err != nil {
		return nil, fmt.Errorf("list containerd's plugins: %w", err)
	}
	found := map[string]string{}
	for _, p := range r.Plugins {
		if p.InitErr == nil {
			found[p.ID] = p.Exports[export]
		}
	}
	return found, nil
}
