// SPDX-License-Identifier: Apache-2.0

// Package identitytest makes authorities and certificates for tests.
package identitytest

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/io-mig/mig/layers/request/identity"
)

// Authority signs hosts' certificates.
type Authority struct {
	t    testing.TB
	Cert *x509.Certificate
	key  *ecdsa.PrivateKey
	next int64
}

// New makes an authority.
func New(t testing.TB) *Authority {
	t.Helper()
	a := &Authority{t: t, key: newKey(t), next: 2}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "mig test " + t.Name()},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
	}
	a.Cert = a.sign(template, template, &a.key.PublicKey)
	return a
}

func newKey(t testing.TB) *ecdsa.PrivateKey {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func (a *Authority) sign(template, parent *x509.Certificate, key *ecdsa.PublicKey) *x509.Certificate {
	a.t.Helper()
	der, err := x509.CreateCertificate(rand.Reader, template, parent, key, a.key)
	if err != nil {
		a.t.Fatal(err)
	}
	c, err := x509.ParseCertificate(der)
	if err != nil {
		a.t.Fatal(err)
	}
	return c
}

// Host makes a host's directory for the given names and IP addresses.
func (a *Authority) Host(names ...string) (dir string, cert *x509.Certificate) {
	a.t.Helper()
	dir = a.t.TempDir()
	return dir, a.HostIn(dir, names...)
}

// HostIn writes a new certificate into a directory.
func (a *Authority) HostIn(dir string, names ...string) *x509.Certificate {
	a.t.Helper()
	return a.host(dir, time.Now().Add(time.Hour), names)
}

// Expired writes a certificate that is out of date.
func (a *Authority) Expired(dir string, names ...string) {
	a.t.Helper()
	a.host(dir, time.Now().Add(-time.Minute), names)
}

func (a *Authority) host(dir string, until time.Time, names []string) *x509.Certificate {
	a.t.Helper()
	template := &x509.Certificate{
		SerialNumber: big.NewInt(a.next), Subject: pkix.Name{CommonName: names[0]},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: until,
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	a.next++
	for _, n := range names {
		if ip := net.ParseIP(n); ip != nil {
			template.IPAddresses = append(template.IPAddresses, ip)
			continue
		}
		template.DNSNames = append(template.DNSNames, n)
	}
	key := newKey(a.t)
	cert := a.sign(template, a.Cert, &key.PublicKey)
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		a.t.Fatal(err)
	}
	Write(a.t, filepath.Join(dir, identity.CAFile), "CERTIFICATE", a.Cert.Raw)
	Write(a.t, filepath.Join(dir, identity.CertFile), "CERTIFICATE", cert.Raw)
	Write(a.t, filepath.Join(dir, identity.KeyFile), "PRIVATE KEY", der)
	return cert
}

// Revoke is a revocation list with the given certificates, valid until then.
func (a *Authority) Revoke(until time.Time, certs ...*x509.Certificate) []byte {
	a.t.Helper()
	list := &x509.RevocationList{Number: big.NewInt(1), ThisUpdate: until.Add(-time.Hour), NextUpdate: until}
	for _, c := range certs {
		list.RevokedCertificateEntries = append(list.RevokedCertificateEntries, x509.RevocationListEntry{SerialNumber: c.SerialNumber, RevocationTime: time.Now()})
	}
	der, err := x509.CreateRevocationList(rand.Reader, list, a.Cert, a.key)
	if err != nil {
		a.t.Fatal(err)
	}
	return der
}

// Write writes one PEM block as a file that only its owner may read.
func Write(t testing.TB, file, kind string, der []byte) {
	t.Helper()
	if err := os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600); err != nil {
		t.Fatal(err)
	}
}
