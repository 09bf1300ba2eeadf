// SPDX-License-Identifier: Apache-2.0

package procfs

import (
	"strconv"
	"testing"
)

// FuzzNumbers: the converters agree with strconv, but for the plus sign that
// strconv.ParseInt takes and the kernel never prints.
func FuzzNumbers(f *testing.F) {
	for _, s := range []string{"0", "ff", "18446744073709551615", "18446744073709551616", "-9223372036854775808",
		"9223372036854775808", "4294967296", "", "-", "+1", "FFFFFFFFFFFFFFFF", "10000000000000000"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		for _, base := range []int{8, 10, 16} {
			for _, width := range []int{8, 16, 31, 32, 64} {
				want, wantErr := strconv.ParseUint(s, base, width)
				got, err := parseUint([]byte(s), uint64(base), uint(width))
				if (err == nil) != (wantErr == nil) || err == nil && got != want {
					t.Fatalf("%q in base %d, %d bits: %d, %v; want %d, %v", s, base, width, got, err, want, wantErr)
				}
			}
		}
		if s != "" && s[0] == '+' {
			return
		}
		for _, width := range []int{32, 64} {
			want, wantErr := strconv.ParseInt(s, 10, width)
			got, err := parseInt([]byte(s), uint(width))
			if (err == nil) != (wantErr == nil) || err == nil && got != want {
				t.Fatalf("%q in %d bits: %d, %v; want %d, %v", s, width, got, err, want, wantErr)
			}
		}
	})
}
