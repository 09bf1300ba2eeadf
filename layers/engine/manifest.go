// SPDX-License-Identifier: Apache-2.0

package engine

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"

	"github.com/io-mig/mig/layers/kernel"
	"github.com/io-mig/mig/layers/kernel/target"
	"github.com/io-mig/mig/layers/medium"
	"github.com/io-mig/mig/spec/image"
	"github.com/io-mig/mig/spec/record"
)

// Version of mig, set at build time.
var Version = "0.1.0-dev"

// writeManifest tells the medium what the stream will be.
func writeManifest(ctx context.Context, m medium.Medium, container string, files *target.Files, subsystems *kernel.Manager) error {
	man, err := newManifest(container, files, subsystems)
	if err != nil {
		return err
	}
	b, err := man.Marshal()
	if err != nil {
		return fmt.Errorf("manifest: %w", err)
	}
	_, err = m.Command(ctx, record.Command{Verb: medium.VerbManifest, Body: b})
	return err
}

// readManifest asks the medium what the stream is and checks that this host
// can take it, before anything is built.
func readManifest(ctx context.Context, m medium.Medium, subsystems *kernel.Manager) (*image.Manifest, error) {
	reply, err := m.Command(ctx, record.Command{Verb: medium.VerbManifest})
	if err != nil {
		return nil, fmt.Errorf("ask for the image's manifest: %w", err)
	}
	man, err := image.UnmarshalManifest(reply.Body)
	if err != nil {
		return nil, err
	}
	return man, checkManifest(man, subsystems)
}

// checkManifest names everything that does not fit, not just the first.
func checkManifest(man *image.Manifest, subsystems *kernel.Manager) error {
	var errs []error
	if man.Architecture != runtime.GOARCH {
		errs = append(errs, fmt.Errorf("the image was made on %s, this host is %s", man.Architecture, runtime.GOARCH))
	}
	if int(man.PageSize) != os.Getpagesize() {
		errs = append(errs, fmt.Errorf("the image has pages of %d bytes, this host's have %d", man.PageSize, os.Getpagesize()))
	}
	for _, s := range man.Subsystems {
		errs = append(errs, subsystems.Accepts(s.Name, s.Version))
	}
	here, err := cpuFeatures()
	errs = append(errs, err)
	if err == nil {
		errs = append(errs, checkFeatures(man.CPUFeatures, here))
	}
	return errors.Join(errs...)
}
