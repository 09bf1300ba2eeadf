// SPDX-License-Identifier: Apache-2.0

package shim

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	taskapi "github.com/containerd/containerd/api/runtime/task/v3"
	"github.com/containerd/errdefs"
	"github.com/containerd/errdefs/pkg/errgrpc"
	"google.golang.org/protobuf/types/known/emptypb"

	"github.com/io-mig/mig/layers/request/job"
	"github.com/io-mig/mig/runtime"
)

// TestErrorsCross: every error of an operation reaches the client with its text, in
// one piece, and its class, whatever it wraps. None of them is the end of the shim.
func TestErrorsCross(t *testing.T) {
	// What an engine that failed leaves, beside what was the matter first: it has
	// nothing to unwrap to.
	engine := &job.Failure{Kind: job.Other, Text: "connection lost"}
	for _, c := range []struct {
		name  string
		err   error
		class error
	}{
		{"joined", errors.Join(errors.New("canceled by a person"), engine), errdefs.ErrUnknown},
		{"several", fmt.Errorf("checkpoint web: %w: %w", errors.New("too late"), engine), errdefs.ErrUnknown},
		{"nothing wrapped", errors.Join(errors.New("first"), fmt.Errorf("second: %w", error(nil))), errdefs.ErrUnknown},
		{"engine first", errors.Join(engine, errors.New("and more")), errdefs.ErrUnknown},
		{"runtime", asAPI(fmt.Errorf("web: %w", runtime.ErrNotExist)), errdefs.ErrNotFound},
		{"class and a failure", fmt.Errorf("web: %w: %w", errdefs.ErrFailedPrecondition, engine), errdefs.ErrFailedPrecondition},
		{"canceled", fmt.Errorf("web: %w", &job.Failure{Kind: job.Canceled, Text: "undone"}), context.Canceled},
	} {
		t.Run(c.name, func(t *testing.T) {
			call := method(func(context.Context, *taskapi.StartRequest) (*emptypb.Empty, error) { return nil, c.err })
			_, err := call(t.Context(), func(any) error { return nil })
			if err == nil {
				t.Fatal("the operation succeeded")
			}
			native := errgrpc.ToNative(err) // as containerd sees it
			if !errors.Is(native, c.class) {
				t.Errorf("class of %q: want %v", native, c.class)
			}
			if got := strings.Count(native.Error(), c.err.Error()); got != 1 {
				t.Errorf("%q is in the client's error %d times:\n%v", c.err, got, native)
			}
		})
	}
}
