// SPDX-License-Identifier: Apache-2.0

// Package authority makes what package identity reads: a small certificate
// authority for the hosts of one site, and the hosts' certificates. Keys are
// ECDSA on P-256.
//
// The authority's directory holds
//
//	ca.pem         its certificate; older ones follow it after a rotation
//	ca.key         the newest one's private key: stays here
//	hosts/NAME/    what host NAME gets: ca.pem, host.pem, host.key, revoked.pem
//	revoked.pem    certificates that are not accepted any more, if there are any
//
// Every file has mode 0600 and is replaced by rename, so that whoever reads it
// at that moment sees the old one or the new one.
package authority

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"os"
	"path/filepath"
	"time"

	"github.com/io-mig/mig/layers/request/identity"
)

// KeyFile is the authority's private key.
const KeyFile = "ca.key"

// hostsDir holds a directory for each host.
const hostsDir = "hosts"

// Skew is how far the clock of a host may be behind the authority's: a
// certificate is valid that long before it was made.
const Skew = time.Hour

// Authority is one that can sign.
type Authority struct {
	dir  string
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

// Init makes an authority in dir that is valid for the given time. It does not
// replace one: with rotate it makes a new certificate and key, and keeps the
// certificates of the old ones, so that what they signed is accepted until it
// runs out.
func Init(dir, name string, valid time.Duration, rotate bool) (*x509.Certificate, error) {
	old, err := os.ReadFile(filepath.Join(dir, identity.CAFile))
	switch {
	case errors.Is(err, fs.ErrNotExist):
		if rotate {
			return nil, fmt.Errorf("there is no authority in %s to rotate: make one without --rotate", dir)
		}
	case err != nil:
		return nil, err
	case !rotate:
		return nil, fmt.Errorf("there is an authority in %s already: --rotate replaces its key and keeps its certificate", dir)
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	t, err := template(name, valid)
	if err != nil {
		return nil, err
	}
	t.IsCA, t.BasicConstraintsValid, t.MaxPathLenZero = true, true, true
	t.KeyUsage = x509.KeyUsageCertSign | x509.KeyUsageCRLSign
	der, err := x509.CreateCertificate(rand.Reader, t, t, key.Public(), key)
	if err != nil {
		return nil, fmt.Errorf("sign the authority's certificate: %w", err)
	}
	encoded, err := encodeKey(key)
	if err != nil {
		return nil, err
	}
	// The key comes first: a crash in between leaves the old certificates with a
	// key that does not fit, which Open says, and never a certificate without key.
	err = errors.Join(
		replace(filepath.Join(dir, KeyFile), encoded),
		replace(filepath.Join(dir, identity.CAFile), append(encodeCert(der), old...)),
	)
	if err != nil {
		return nil, err
	}
	return x509.ParseCertificate(der)
}

// Open reads an authority.
func Open(dir string) (*Authority, error) {
	certs, err := readCerts(filepath.Join(dir, identity.CAFile))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("there is no authority in %s (mig certs init makes one): %w", dir, err)
	}
	if err != nil {
		return nil, err
	}
	b, err := os.ReadFile(filepath.Join(dir, KeyFile))
	if err != nil {
		return nil, fmt.Errorf("the authority's private key: %w", err)
	}
	block, _ := pem.Decode(b)
	if block == nil {
		return nil, fmt.Errorf("%s holds no key", filepath.Join(dir, KeyFile))
	}
	key, err := x509.ParseECPrivateKey(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", filepath.Join(dir, KeyFile), err)
	}
	if !key.PublicKey.Equal(certs[0].PublicKey) {
		return nil, fmt.Errorf("%s is not the key of the first certificate in %s (mig certs init --rotate makes new ones)",
			KeyFile, filepath.Join(dir, identity.CAFile))
	}
	return &Authority{dir: dir, cert: certs[0], key: key}, nil
}

// template is what all certificates share.
func template(name string, valid time.Duration) (*x509.Certificate, error) {
	if valid <= 0 {
		return nil, fmt.Errorf("a certificate that is valid for %s is of no use", valid)
	}
	// RFC 5280, section 4.1.2.2: positive, at most 20 bytes.
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127))
	if err != nil {
		return nil, err
	}
	now := time.Now()
	return &x509.Certificate{
		SerialNumber: serial.Add(serial, big.NewInt(1)), Subject: pkix.Name{CommonName: name},
		NotBefore: now.Add(-Skew), NotAfter: now.Add(valid),
	}, nil
}
