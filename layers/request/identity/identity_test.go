// SPDX-License-Identifier: Apache-2.0

package identity_test

import (
	"crypto/tls"
	"errors"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/io-mig/mig/layers/request/identity"
	"github.com/io-mig/mig/layers/request/identity/identitytest"
)

// meet makes one connection and returns what each side says of it.
func meet(t *testing.T, server *tls.Config, client *tls.Config) (serverErr, clientErr error) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	done := make(chan error, 1)
	go func() {
		conn, err := l.Accept()
		if err != nil {
			done <- err
			return
		}
		defer conn.Close()
		c := tls.Server(conn, server)
		if err = c.Handshake(); err == nil {
			_, err = c.Write([]byte("x"))
		}
		done <- err
	}()
	conn, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	c := tls.Client(conn, client)
	// In TLS 1.3 a client learns that it was refused with its first read.
	_, clientErr = c.Read(make([]byte, 1))
	conn.Close()
	return <-done, clientErr
}

func server(t *testing.T, dir string) *tls.Config {
	t.Helper()
	c, err := identity.Server(dir)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func client(t *testing.T, dir, host string) *tls.Config {
	t.Helper()
	c, err := identity.Client(dir, host)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestMutual(t *testing.T) {
	a := identitytest.New(t)
	there, _ := a.Host("there.example", "127.0.0.1")
	here, _ := a.Host("here.example")
	s := server(t, there)
	for _, name := range []string{"there.example", "127.0.0.1"} {
		if serverErr, clientErr := meet(t, s, client(t, here, name)); serverErr != nil || clientErr != nil {
			t.Errorf("%s: %v, %v", name, serverErr, clientErr)
		}
	}
	if _, err := meet(t, s, client(t, here, "other.example")); err == nil || !strings.Contains(err.Error(), "other.example") {
		t.Errorf("another name: %v", err)
	}
	old := client(t, here, "there.example")
	old.MinVersion, old.MaxVersion = tls.VersionTLS12, tls.VersionTLS12
	if err, _ := meet(t, s, old); err == nil {
		t.Error("TLS 1.2 was accepted")
	}
	none := client(t, here, "there.example")
	none.Certificates = nil
	if err, _ := meet(t, s, none); err == nil {
		t.Error("a client without a certificate was accepted")
	}
	stranger, _ := identitytest.New(t).Host("here.example")
	if err, _ := meet(t, s, client(t, stranger, "there.example")); err == nil {
		t.Error("another authority's client was accepted")
	}
	if _, err := meet(t, server(t, stranger), client(t, here, "here.example")); err == nil {
		t.Error("another authority's server was accepted")
	}
	late := t.TempDir()
	a.Expired(late, "here.example")
	if err, _ := meet(t, s, client(t, late, "there.example")); err == nil {
		t.Error("a certificate that is out of date was accepted")
	}
}

// TestRotation: what is replaced counts at the next handshake.
func TestRotation(t *testing.T) {
	a := identitytest.New(t)
	there, thereCert := a.Host("there.example")
	here, hereCert := a.Host("here.example")
	s := server(t, there)
	good := func(what string, wantServer, wantClient error) {
		t.Helper()
		c, err := identity.Client(here, "there.example")
		if err != nil {
			t.Fatal(err)
		}
		serverErr, clientErr := meet(t, s, c)
		// The side that is refused says only that it was.
		if wantClient == nil && !errors.Is(serverErr, wantServer) {
			t.Errorf("%s: the server says %v", what, serverErr)
		}
		if wantServer == nil && !errors.Is(clientErr, wantClient) {
			t.Errorf("%s: the client says %v", what, clientErr)
		}
	}
	good("at first", nil, nil)

	revokedThere := filepath.Join(there, identity.RevokedFile)
	identitytest.Write(t, revokedThere, "CERTIFICATE", hereCert.Raw)
	good("the client is revoked", identity.ErrRevoked, nil)
	a.HostIn(here, "here.example")
	good("the client has a new certificate", nil, nil)
	identitytest.Write(t, revokedThere, "X509 CRL", a.Revoke(time.Now().Add(time.Hour), hereCert))
	good("a list without the new one", nil, nil)

	identitytest.Write(t, filepath.Join(here, identity.RevokedFile), "X509 CRL", a.Revoke(time.Now().Add(time.Hour), hereCert, thereCert))
	good("the server is revoked", nil, identity.ErrRevoked)
	a.HostIn(there, "there.example")
	good("the server has a new certificate", nil, nil)

	for what, der := range map[string][]byte{
		"a stranger's list": identitytest.New(t).Revoke(time.Now().Add(time.Hour)),
		"an old list":       a.Revoke(time.Now().Add(-time.Minute)),
		"garbage":           []byte("garbage"),
	} {
		identitytest.Write(t, revokedThere, "X509 CRL", der)
		if err, _ := meet(t, s, client(t, here, "there.example")); err == nil || !strings.Contains(err.Error(), identity.RevokedFile) {
			t.Errorf("%s: %v", what, err)
		}
	}
}

func TestRefusesFiles(t *testing.T) {
	a := identitytest.New(t)
	for what, spoil := range map[string]func(dir string) error{
		"mig certs":  func(dir string) error { return os.Remove(filepath.Join(dir, identity.CertFile)) },
		"mig  certs": func(dir string) error { return os.Remove(filepath.Join(dir, identity.KeyFile)) },
		"chmod":      func(dir string) error { return os.Chmod(filepath.Join(dir, identity.KeyFile), 0o640) },
		"holds no":   func(dir string) error { return os.WriteFile(filepath.Join(dir, identity.CAFile), []byte("x"), 0o600) },
		"host.key": func(dir string) error {
			other, _ := a.Host("x")
			b, err := os.ReadFile(filepath.Join(other, identity.KeyFile))
			return errors.Join(err, os.WriteFile(filepath.Join(dir, identity.KeyFile), b, 0o600))
		},
		"more than": func(dir string) error { return os.Truncate(filepath.Join(dir, identity.CertFile), 5<<20) },
	} {
		dir, _ := a.Host("here")
		if err := spoil(dir); err != nil {
			t.Fatal(err)
		}
		want := strings.Join(strings.Fields(what), " ")
		if _, err := identity.Server(dir); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: server: %v", what, err)
		}
		if _, err := identity.Client(dir, "there"); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: client: %v", what, err)
		}
	}
	if _, err := identity.Client(t.TempDir(), "x"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("no files: %v", err)
	}
	dir, _ := a.Host("here")
	if _, err := identity.Client(dir, ""); err == nil {
		t.Error("a client for no host was made")
	}
}
