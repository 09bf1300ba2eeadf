// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/io-mig/mig/layers/medium/directory"
	"github.com/io-mig/mig/spec/image"
)

func verifyCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "verify DIRECTORY",
		Short: "Check every checksum of a checkpoint image and name all damage",
		Args:  words(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			im, err := directory.OpenImage(args[0])
			if err != nil {
				return err
			}
			var records, damaged, bytes uint64
			err = im.Verify(func(e image.Entry, damage error) {
				records++
				bytes += uint64(e.Length)
				if damage != nil {
					damaged++
					fmt.Fprintln(cmd.OutOrStdout(), damage)
				}
			})
			if err := errors.Join(err, im.Close()); err != nil {
				return fmt.Errorf("%d of %d records are damaged: %w", damaged, records, err)
			}
			fmt.Fprintf(cmd.OutOrStdout(), "%s: %d records, %d bytes, every checksum is right\n", args[0], records, bytes)
			return nil
		},
	}
}
