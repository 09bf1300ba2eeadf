// SPDX-License-Identifier: Apache-2.0

package driver

import (
	"context"
	"errors"
	"fmt"
	"net"

	events "github.com/containerd/containerd/api/services/ttrpc/events/v1"
	"github.com/containerd/ttrpc"
	"google.golang.org/protobuf/types/known/emptypb"
)

// sink takes a shim's events, in containerd's place.
type sink struct {
	address string
	server  *ttrpc.Server
	served  chan error
}

func newSink(path string) (*sink, error) {
	l, err := net.Listen("unix", path)
	if err != nil {
		return nil, fmt.Errorf("socket for events: %w", err)
	}
	server, err := ttrpc.NewServer()
	if err != nil {
		return nil, errors.Join(err, l.Close())
	}
	s := &sink{address: path, server: server, served: make(chan error, 1)}
	events.RegisterTTRPCEventsService(server, s)
	go func() { s.served <- server.Serve(context.Background(), l) }()
	return s, nil
}

// Forward takes one event. What it says is of no interest here.
func (s *sink) Forward(context.Context, *events.ForwardRequest) (*emptypb.Empty, error) {
	return &emptypb.Empty{}, nil
}

func (s *sink) close() error {
	err := s.server.Close()
	if served := <-s.served; !errors.Is(served, ttrpc.ErrServerClosed) {
		err = errors.Join(err, served)
	}
	return err
}
