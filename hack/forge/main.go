// SPDX-License-Identifier: Apache-2.0

// Command forge makes a hostile image out of a valid one: it changes what the
// records say and computes every checksum anew, as an attacker would. Tests use
// it; there is no other use for it.
//
//	forge FROM TO EDIT...
//
// An edit is one of
//
//	SUBSYSTEM/KIND.PATH=VALUE   a field of a protobuf payload, in every such record
//	SUBSYSTEM/KIND!drop         leave these records out
//	SUBSYSTEM/KIND!twice        repeat them
//	SUBSYSTEM/KIND!raw=TEXT     another payload
//	SUBSYSTEM/KIND!entity=N     another entity
//	SUBSYSTEM/KIND!process=N    another process
//	SUBSYSTEM/KIND!insert=TEXT  a record of its own in front of the first
//	manifest.FEATURE            one more CPU feature
//	subsystem.NAME              one more subsystem in the manifest
//
// A path is made of field names; [] stands for every element of a list, [N] for
// one, and [+] for a new one: thread[].effective=0xffff. Bytes may be hex:00ff.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/io-mig/mig/layers/medium"
	"github.com/io-mig/mig/layers/medium/directory"
	"github.com/io-mig/mig/spec/image"
	"github.com/io-mig/mig/spec/record"
)

func main() {
	if len(os.Args) < 3 {
		fmt.Fprintln(os.Stderr, "usage: forge FROM TO EDIT...")
		os.Exit(2)
	}
	if err := forge(os.Args[1], os.Args[2], os.Args[3:]); err != nil {
		fmt.Fprintln(os.Stderr, "forge:", err)
		os.Exit(1)
	}
}

func forge(from, to string, texts []string) error {
	edits, err := parse(texts)
	if err != nil {
		return err
	}
	im, err := directory.OpenImage(from)
	if err != nil {
		return err
	}
	manifest := *im.Manifest()
	if err := im.Close(); err != nil {
		return err
	}
	if err := edits.manifest(&manifest); err != nil {
		return err
	}
	r, err := directory.NewReader(from)
	if err != nil {
		return err
	}
	defer r.Close()
	w, err := directory.Create(to, directory.Options{})
	if err != nil {
		return err
	}
	err = copyRecords(r, w, &manifest, edits)
	return errors.Join(err, w.Close(), edits.unused())
}

func copyRecords(r, w medium.Medium, manifest *image.Manifest, edits *edits) error {
	ctx := context.Background()
	manifest.Files = nil // the writer's to fill
	body, err := manifest.Marshal()
	if err != nil {
		return err
	}
	if _, err := w.Command(ctx, record.Command{Verb: medium.VerbManifest, Body: body}); err != nil {
		return err
	}
	for {
		rec, release, err := r.PopData(ctx)
		if errors.Is(err, io.EOF) {
			return w.Flush(ctx)
		}
		if err != nil {
			return err
		}
		out, err := edits.apply(rec)
		for _, o := range out {
			if err == nil {
				err = o.Seal()
			}
			if err == nil {
				err = w.PushData(ctx, o)
			}
		}
		release()
		if err != nil {
			return fmt.Errorf("%s: %w", rec.Header, err)
		}
	}
}
