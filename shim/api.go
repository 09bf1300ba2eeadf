// SPDX-License-Identifier: Apache-2.0

package shim

import (
	"context"

	"github.com/containerd/ttrpc"
	"google.golang.org/protobuf/proto"
)

// The two versions of the task API differ in nothing but the service's name:
// api/runtime/task/v2/shim.proto and v3/shim.proto have the same messages with
// the same numbers. One table of methods serves both. The messages are those of
// package v2, because v3's also carries a gRPC server, which would make the
// shim 10 MB larger.
var serviceNames = []string{"containerd.task.v2.Task", "containerd.task.v3.Task"}

// register adds the task API to a server.
func (s *service) register(server *ttrpc.Server) {
	methods := map[string]ttrpc.Method{
		"State":      method(s.State),
		"Create":     method(s.Create),
		"Start":      method(s.Start),
		"Delete":     method(s.Delete),
		"Pids":       method(s.Pids),
		"Pause":      method(s.Pause),
		"Resume":     method(s.Resume),
		"Checkpoint": method(s.Checkpoint),
		"Kill":       method(s.Kill),
		"Exec":       method(s.Exec),
		"ResizePty":  method(s.ResizePty),
		"CloseIO":    method(s.CloseIO),
		"Update":     method(s.Update),
		"Wait":       method(s.Wait),
		"Stats":      method(s.Stats),
		"Connect":    method(s.Connect),
		"Shutdown":   method(s.Shutdown),
	}
	for _, name := range serviceNames {
		server.RegisterService(name, &ttrpc.ServiceDesc{Methods: methods})
	}
}

// message is a pointer to a T that is a protobuf message.
type message[T any] interface {
	*T
	proto.Message
}

// method adapts one operation: it decodes the request and gives errors the
// codes that clients know (errdefs).
func method[Req, Resp any, PReq message[Req], PResp message[Resp]](
	f func(context.Context, PReq) (PResp, error),
) ttrpc.Method {
	return func(ctx context.Context, unmarshal func(any) error) (any, error) {
		req := PReq(new(Req))
		if err := unmarshal(req); err != nil {
			return nil, err
		}
		resp, err := f(ctx, req)
		if err != nil {
			return nil, toAPI(err)
		}
		return resp, nil
	}
}
