// SPDX-License-Identifier: Apache-2.0

package wire

import (
	"bytes"
	"encoding/hex"
	"errors"
	"io"
	"strings"
	"testing"
)

func TestPreamble(t *testing.T) {
	token, err := ParseToken("000102030405060708090a0b0c0d0e0f")
	if err != nil || token.String() != "000102030405060708090a0b0c0d0e0f" {
		t.Fatalf("token %s: %v", token, err)
	}
	p := Preamble{Purpose: Urgent, Token: token}
	b := p.Append(nil)
	// The bytes are a contract with other releases.
	const golden = "4d49475001000300" + "000102030405060708090a0b0c0d0e0f" + "00000000" + "ff7b5268"
	if got := hex.EncodeToString(b); got != golden {
		t.Errorf("the preamble is %s, was %s", got, golden)
	}
	if got, err := ReadPreamble(io.MultiReader(bytes.NewReader(b[:5]), bytes.NewReader(b[5:]))); err != nil || got != p {
		t.Errorf("read %+v, %v", got, err)
	}
	for at := range b {
		bad := bytes.Clone(b)
		bad[at] ^= 0x10
		if _, err := DecodePreamble(bad); !errors.Is(err, ErrProtocol) {
			t.Errorf("byte %d changed: %v", at, err)
		}
	}
	for _, purpose := range []Purpose{0, 5, 255} {
		if _, err := DecodePreamble(Preamble{Purpose: purpose}.Append(nil)); !errors.Is(err, ErrProtocol) {
			t.Errorf("%s: %v", purpose, err)
		}
	}
	if _, err := ReadPreamble(strings.NewReader("MIGP")); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("cut: %v", err)
	}
	for _, bad := range []string{"", "00", strings.Repeat("0", 33), strings.Repeat("g", 32), strings.Repeat("0", 64)} {
		if _, err := ParseToken(bad); err == nil {
			t.Errorf("token %q was taken", bad)
		}
	}
	if a, b := NewToken(), NewToken(); a == b {
		t.Error("two tokens are equal")
	}
}

func FuzzPreamble(f *testing.F) {
	f.Add(Preamble{Purpose: Control}.Append(nil))
	f.Add([]byte("GET / HTTP/1.1\r\nHost: localhost\r\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		p, err := DecodePreamble(b)
		if err == nil && !bytes.Equal(p.Append(nil), b) {
			t.Errorf("% x decodes to %+v", b, p)
		}
		if err != nil && !errors.Is(err, ErrProtocol) {
			t.Error(err)
		}
	})
}
