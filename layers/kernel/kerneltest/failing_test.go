// SPDX-License-Identifier: Apache-2.0

//go:build linux

package kerneltest_test

import (
	"context"
	"errors"
	"io"

	"github.com/io-mig/mig/layers/kernel/target"
	"github.com/io-mig/mig/spec/record"
)

// fails is a subsystem that fails an export in one stage.
type fails struct {
	stage string
}

// failing makes them; in the early rounds it fails with the third.
func failing(stage string) func(target.Env) *fails {
	return func(target.Env) *fails { return &fails{stage} }
}

var errOnPurpose = errors.New("failed on purpose")

func (f *fails) Name() string { return "fails" }

func (f *fails) Checkpoint(_ context.Context, step record.Step, _ record.Sink) (record.Progress, error) {
	if step.Stage.String() == f.stage && (step.Stage != record.StageEarly || step.Round == 2) {
		return record.Progress{}, errOnPurpose
	}
	return record.Progress{Done: true}, nil
}

func (f *fails) Restart(context.Context, record.Step, *record.Record) (record.Progress, error) {
	return record.Progress{Done: true}, nil
}

func (f *fails) Fault(context.Context, record.Fault) error { return errors.ErrUnsupported }
func (f *fails) Status() record.Status                     { return record.Status{} }
func (f *fails) Dump(io.Writer) error                      { return nil }
