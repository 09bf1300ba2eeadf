// SPDX-License-Identifier: Apache-2.0

package procfs

import (
	"errors"
	"io/fs"
	"testing"
)

func TestConsistent(t *testing.T) {
	reads := 0
	got, err := Consistent(func() ([]Mapping, error) {
		if reads++; reads < 100 {
			_, err := ParseMaps([]byte("1000-3000 rw-p 00000000 00:00 0 \n2000-4000 rw-p 00000000 00:00 0 \n"))
			return nil, err
		}
		return make([]Mapping, 1), nil
	})
	if err != nil || len(got) != 1 {
		t.Errorf("after %d reads: %d mappings, %v", reads, len(got), err)
	}
	if _, err := Consistent(func() ([]Mapping, error) { return nil, fs.ErrNotExist }); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("of a process that is gone: %v", err)
	}
}
