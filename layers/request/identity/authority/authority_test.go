// SPDX-License-Identifier: Apache-2.0

package authority

import (
	"crypto/tls"
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/io-mig/mig/layers/request/identity"
)

const year = 365 * 24 * time.Hour

func newAuthority(t *testing.T) *Authority {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "ca")
	if _, err := Init(dir, "test authority", 10*year, false); err != nil {
		t.Fatal(err)
	}
	a, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func host(t *testing.T, a *Authority, name string, valid time.Duration, names ...string) string {
	t.Helper()
	_, dir, err := a.Host(name, names, valid)
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

// meet has two hosts shake hands; each error is that of one side.
func meet(t *testing.T, client, server, name string) (clientErr, serverErr error) {
	t.Helper()
	sc, err := identity.Server(server)
	if err != nil {
		return nil, err
	}
	cc, err := identity.Client(client, name)
	if err != nil {
		return err, nil
	}
	a, b := net.Pipe()
	defer a.Close()
	defer b.Close()
	done := make(chan error, 1)
	go func() {
		s := tls.Server(b, sc)
		err := s.Handshake()
		if err == nil {
			_, err = s.Write([]byte{1}) // the client learns of a refusal only by reading
		}
		b.Close()
		done <- err
	}()
	c := tls.Client(a, cc)
	clientErr = c.Handshake()
	if clientErr == nil {
		_, clientErr = c.Read(make([]byte, 1))
	}
	a.Close()
	return clientErr, <-done
}

func TestTwoHostsMeet(t *testing.T) {
	a := newAuthority(t)
	one, two := host(t, a, "one", year), host(t, a, "two", year, "10.0.0.2", "::1")
	for _, name := range []string{"two", "10.0.0.2", "::1"} {
		if c, s := meet(t, one, two, name); c != nil || s != nil {
			t.Errorf("as %s: %v, %v", name, c, s)
		}
	}
	if c, _ := meet(t, one, two, "three"); c == nil || !strings.Contains(c.Error(), "three") {
		t.Errorf("a host by another's name: %v", c)
	}
}

func TestStrangersAreRefused(t *testing.T) {
	a, b := newAuthority(t), newAuthority(t)
	one, two := host(t, a, "one", year), host(t, b, "two", year)
	if c, _ := meet(t, one, two, "two"); c == nil {
		t.Error("a client took the server of another authority")
	}
	// The client knows the server's authority, not the other way round.
	ca, err := os.ReadFile(filepath.Join(two, identity.CAFile))
	if err != nil {
		t.Fatal(err)
	}
	if err := replace(filepath.Join(one, identity.CAFile), ca); err != nil {
		t.Fatal(err)
	}
	if _, s := meet(t, one, two, "two"); s == nil {
		t.Error("a server took the client of another authority")
	}
}

func TestRevokedIsRefusedBySharedList(t *testing.T) {
	a := newAuthority(t)
	one, two := host(t, a, "one", year), host(t, a, "two", year)
	if _, err := a.Revoke("one"); err != nil {
		t.Fatal(err)
	}
	if _, s := meet(t, one, two, "two"); !errors.Is(s, identity.ErrRevoked) {
		t.Errorf("the server says %v", s)
	}
	// A new certificate of the same host is good.
	one = host(t, a, "one", year)
	if c, s := meet(t, one, two, "two"); c != nil || s != nil {
		t.Errorf("after a new certificate: %v, %v", c, s)
	}
	if _, err := a.Revoke("nobody"); err == nil {
		t.Error("an unknown host was revoked")
	}
	if _, err := a.Revoke(filepath.Join(host(t, newAuthority(t), "x", year), identity.CertFile)); err == nil {
		t.Error("another authority's certificate was revoked")
	}
}

func TestExpiredIsRefused(t *testing.T) {
	a := newAuthority(t)
	one, two := host(t, a, "one", time.Nanosecond), host(t, a, "two", year)
	if _, s := meet(t, one, two, "two"); s == nil || !strings.Contains(s.Error(), "expired") {
		t.Errorf("the server says %v", s)
	}
	if c, _ := meet(t, two, one, "one"); c == nil || !strings.Contains(c.Error(), "expired") {
		t.Errorf("the client says %v", c)
	}
}

// TestRotation: hosts of the old and the new authority meet as soon as the
// list of authorities is shared.
func TestRotation(t *testing.T) {
	a := newAuthority(t)
	one := host(t, a, "one", year)
	if _, err := Init(a.dir, "again", year, false); err == nil {
		t.Fatal("an authority was replaced")
	}
	if _, err := Init(a.dir, "again", year, true); err != nil {
		t.Fatal(err)
	}
	b, err := Open(a.dir)
	if err != nil {
		t.Fatal(err)
	}
	if err := b.Share(); err != nil {
		t.Fatal(err)
	}
	two := host(t, b, "two", year)
	for _, way := range [][3]string{{one, two, "two"}, {two, one, "one"}} {
		if c, s := meet(t, way[0], way[1], way[2]); c != nil || s != nil {
			t.Errorf("to %s: %v, %v", way[2], c, s)
		}
	}
}

func TestFilesArePrivate(t *testing.T) {
	a := newAuthority(t)
	dir := host(t, a, "one", year)
	for _, d := range []string{a.dir, dir} {
		es, err := os.ReadDir(d)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range es {
			if i, err := e.Info(); err != nil || i.Mode().Perm()&0o077 != 0 {
				t.Errorf("%s/%s has mode %v, %v", d, e.Name(), i.Mode(), err)
			}
		}
	}
	for _, bad := range []string{"", "..", "a/b", "-x", "a b"} {
		if _, _, err := a.Host(bad, nil, year); err == nil {
			t.Errorf("a certificate for %q", bad)
		}
	}
}

// TestHostDoesNotOutliveItsAuthority: the certificate ends with the authority's.
func TestHostDoesNotOutliveItsAuthority(t *testing.T) {
	a := newAuthority(t)
	cert, _, err := a.Host("one", nil, 100*year)
	if err != nil || cert.NotAfter.After(a.cert.NotAfter) {
		t.Errorf("valid until %v, the authority until %v, %v", cert.NotAfter, a.cert.NotAfter, err)
	}
}
