// SPDX-License-Identifier: Apache-2.0

package procfs

import (
	"errors"
	"time"
)

// consistentWithin is how long Consistent reads again and again.
const consistentWithin = 5 * time.Second

// Consistent reads a list of mappings (Maps, Smaps) of a running process. The
// kernel writes it piece by piece, and a process that changes its mappings
// meanwhile gets a list that contradicts itself: one that does nothing else often,
// on a busy machine nearly always. Such a list is read again.
func Consistent[T any](read func() ([]T, error)) (out []T, err error) {
	var torn *ParseError
	for end := time.Now().Add(consistentWithin); ; time.Sleep(100 * time.Microsecond) {
		if out, err = read(); !errors.As(err, &torn) || time.Now().After(end) {
			return out, err
		}
	}
}
