// SPDX-License-Identifier: Apache-2.0

// Package depart is the source's side of moves: it reads a container, asks the
// destination whether it fits, copies what is missing of its image, and has the
// container's own shim move it. It runs in the process of whoever types mig
// migrate; the death of that process cancels the move before its commit.
package depart

import (
	"context"
	"net"
	"strings"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/io-mig/mig/layers/request/address"
	"github.com/io-mig/mig/layers/request/policy"
	"github.com/io-mig/mig/shim/cni"
	"github.com/io-mig/mig/shim/host"
	"github.com/io-mig/mig/spec/image"
	"github.com/io-mig/mig/spec/network"
	"github.com/io-mig/mig/spec/record"
	"github.com/io-mig/mig/spec/wire"
)

// Medium carries the state between hosts.
const Medium = "stream"

// Options of one move.
type Options struct {
	Host *host.Host
	// State is containerd's state directory, Requests the one of requests'
	// statuses.
	State, Requests      string
	Namespace, Container string
	// Destination is HOST or HOST:PORT.
	Destination string
	// TLS is the directory of this host's certificate; with Insecure there is
	// none, and the destination must be of this machine.
	TLS      string
	Insecure bool
	// Peer is the name that the destination's certificate must have; empty means
	// HOST.
	Peer string

	Strategy string
	// Downtime is the budget for which the container may be stopped.
	Downtime time.Duration
	// Timeout bounds the move of the state; 0 means no bound.
	Timeout time.Duration
	// Bandwidth in bytes per second, 0 means no bound.
	Bandwidth uint64
	// Compress is auto, zstd or none.
	Compress string
	// Rounds bounds the early rounds, 0 means the strategy's own bound.
	Rounds int
	// AutoConverge slows the container down while it writes faster than its memory
	// travels.
	AutoConverge bool
	// Streams is the number of connections, 0 means the engine's choice.
	Streams int
	// Policies are those of this move, see package policy.
	Policies map[string]string
	// Keep leaves the ended container on the source.
	Keep bool
	// LogURI takes the place of the container's outputs on the destination.
	LogURI string
	// Token of the move; empty means a new one.
	Token string

	// Tool is the version of mig.
	Tool string
	// Check is the engine's pre-flight of a container by its bundle, for a move to
	// an address.
	Check func(ctx context.Context, bundle, namespace, id string, to address.Move) ([]record.Finding, error)
	// Network is what a container's copy needs of the other host's network.
	Network func(bundle, namespace, id string, to address.Move) (*network.Request, error)
	// CNI is where this host's plug-ins lie.
	CNI cni.Dirs
	// Describe is what the engine's stream of a container will be.
	Describe func(container string, spec *specs.Spec) (*image.Manifest, error)
	// Observe is told of every change. It may be nil.
	Observe func(Progress)
}

// address is the destination with its port.
func (o *Options) address() string {
	d := o.Destination
	if ip := net.ParseIP(strings.Trim(d, "[]")); ip != nil {
		return net.JoinHostPort(ip.String(), address.DefaultPort)
	}
	if !strings.Contains(d, ":") {
		return net.JoinHostPort(d, address.DefaultPort)
	}
	return d
}

func (o *Options) hostname() string {
	name, _, err := net.SplitHostPort(o.address())
	if err != nil {
		return o.Destination
	}
	return name
}

func loopback(name string) bool {
	ip := net.ParseIP(name)
	return name == "localhost" || ip != nil && ip.IsLoopback()
}

// move is the address under which the source's engine finds the destination's.
func (o *Options) move(token wire.Token) address.Move {
	m := address.Move{
		Host: o.address(), Token: token, Strategy: o.Strategy, Downtime: o.Downtime, Timeout: o.Timeout,
		Rounds: o.Rounds, AutoConverge: o.AutoConverge, Streams: o.Streams, Bandwidth: int64(o.Bandwidth), Compress: o.Compress, TLS: o.TLS, Insecure: o.Insecure, Peer: o.Peer,
		Policies: policy.Encode(o.Policies),
	}
	if o.Compress == "auto" {
		m.Compress = ""
	}
	return m
}
