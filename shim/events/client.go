// SPDX-License-Identifier: Apache-2.0

package events

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"time"

	eventsapi "github.com/containerd/containerd/api/services/ttrpc/events/v1"
	"github.com/containerd/containerd/api/types"
	"github.com/containerd/ttrpc"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/timestamppb"
)

// sendTimeout bounds one delivery (containerd's own publisher: 5 s).
const sendTimeout = 5 * time.Second

// Client is the Sender to containerd's event service. It connects when it has
// something to send and again after a failure. Not safe for concurrent use.
type Client struct {
	address   string
	namespace string
	client    *ttrpc.Client
}

// NewClient sends to the ttrpc socket at address, a path or unix:// URL, events
// of one containerd namespace.
func NewClient(address, namespace string) *Client {
	return &Client{address: strings.TrimPrefix(address, "unix://"), namespace: namespace}
}

// Send implements Sender.
func (c *Client) Send(ctx context.Context, topic string, at time.Time, event proto.Message) error {
	value, err := marshalAny(event)
	if err != nil {
		return fmt.Errorf("event %s: %w", topic, err)
	}
	req := &eventsapi.ForwardRequest{Envelope: &types.Envelope{
		Timestamp: timestamppb.New(at),
		Namespace: c.namespace,
		Topic:     topic,
		Event:     value,
	}}
	ctx, cancel := context.WithTimeout(ctx, sendTimeout)
	defer cancel()
	reused := c.client != nil
	err = c.forward(ctx, req)
	if reused && errors.Is(err, ttrpc.ErrClosed) {
		// containerd was restarted since the last event.
		err = c.forward(ctx, req)
	}
	if err != nil {
		return fmt.Errorf("send %s to containerd at %s: %w", topic, c.address, err)
	}
	return nil
}

func (c *Client) forward(ctx context.Context, req *eventsapi.ForwardRequest) error {
	if c.client == nil {
		var d net.Dialer
		conn, err := d.DialContext(ctx, "unix", c.address)
		if err != nil {
			return err
		}
		c.client = ttrpc.NewClient(conn)
	}
	_, err := eventsapi.NewTTRPCEventsClient(c.client).Forward(ctx, req)
	if err != nil {
		c.client.Close()
		c.client = nil
	}
	return err
}

// marshalAny packs a message as containerd's typeurl package does: the type's
// name without a host in front.
func marshalAny(m proto.Message) (*anypb.Any, error) {
	data, err := proto.Marshal(m)
	if err != nil {
		return nil, err
	}
	return &anypb.Any{TypeUrl: string(m.ProtoReflect().Descriptor().FullName()), Value: data}, nil
}
