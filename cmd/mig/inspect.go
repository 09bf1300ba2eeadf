// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/io-mig/mig/layers/medium/directory"
	"github.com/io-mig/mig/spec/image"
	"github.com/io-mig/mig/spec/summary"
)

func inspectCommand() *cobra.Command {
	var asJSON, mappings bool
	c := &cobra.Command{
		Use:   "inspect DIRECTORY",
		Short: "Show what a checkpoint image holds: sizes per subsystem, process and mapping",
		Args:  words(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			manifest, sum, err := inspect(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			if asJSON {
				enc := json.NewEncoder(cmd.OutOrStdout())
				enc.SetIndent("", "  ")
				return enc.Encode(struct {
					Manifest *image.Manifest `json:"manifest"`
					*summary.Image
				}{manifest, sum})
			}
			fmt.Fprintf(cmd.OutOrStdout(), "container %s, %s, made %s by mig %s on Linux %s (%s)\n",
				manifest.Container, args[0], manifest.Created, manifest.Tool, manifest.Kernel, manifest.Architecture)
			return sum.WriteTree(cmd.OutOrStdout(), mappings)
		},
	}
	c.Flags().BoolVar(&asJSON, "json", false, "print one JSON object, mappings included")
	c.Flags().BoolVarP(&mappings, "mappings", "m", false, "show every mapping that holds pages")
	return c
}

// inspect reads an image once, checking every checksum on the way.
func inspect(ctx context.Context, dir string) (*image.Manifest, *summary.Image, error) {
	im, err := directory.OpenImage(dir)
	if err != nil {
		return nil, nil, err
	}
	manifest := im.Manifest()
	if err := im.Close(); err != nil {
		return nil, nil, err
	}
	r, err := directory.NewReader(dir)
	if err != nil {
		return nil, nil, err
	}
	defer r.Close()
	sum := &summary.Image{}
	for {
		rec, release, err := r.PopData(ctx)
		if errors.Is(err, io.EOF) {
			return manifest, sum, nil
		}
		if err != nil {
			return nil, nil, err
		}
		err = rec.Verify()
		if err == nil {
			err = sum.Add(rec)
		}
		release()
		if err != nil {
			return nil, nil, fmt.Errorf("image %s: %w (mig verify lists all damage)", dir, err)
		}
	}
}
