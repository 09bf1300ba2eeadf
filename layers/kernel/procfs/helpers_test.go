// SPDX-License-Identifier: Apache-2.0

package procfs

import (
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

func golden(t testing.TB, name string) []byte {
	t.Helper()
	data, err := os.ReadFile(filepath.Join("testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// equal compares without the parsers' private bookkeeping.
func equal[T any](t *testing.T, got, want T) {
	t.Helper()
	opts := cmp.Options{cmpopts.IgnoreUnexported(SmapsMapping{}, TimerfdInfo{}), cmpopts.EquateComparable(netip.AddrPort{})}
	if diff := cmp.Diff(want, got, opts); diff != "" {
		t.Errorf("want -, got +:\n%s", diff)
	}
}

func must[T any](v T, err error) func(testing.TB) T {
	return func(t testing.TB) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

// refuses checks that parse rejects text with a ParseError that mentions want
// and quotes the place.
func refuses[T any](t *testing.T, parse func([]byte) (T, error), text, want string) {
	t.Helper()
	_, err := parse([]byte(text))
	var pe *ParseError
	if !errors.As(err, &pe) {
		t.Errorf("%q: got %v, want a ParseError", text, err)
		return
	}
	if !strings.Contains(err.Error(), want) {
		t.Errorf("%q: error %q does not mention %q", text, err, want)
	}
}
