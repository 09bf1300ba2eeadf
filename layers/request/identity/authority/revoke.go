// SPDX-License-Identifier: Apache-2.0

package authority

import (
	"bytes"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/io-mig/mig/layers/request/identity"
)

// Revoke makes every host refuse a certificate, named by its host (the newest
// of that name) or by its file, and shares the list with the directories of all
// hosts. A host obeys as soon as it has the list. Revoking twice is revoking
// once.
func (a *Authority) Revoke(what string) (*x509.Certificate, error) {
	cert, err := a.find(what)
	if err != nil {
		return nil, err
	}
	if err := a.ours(cert); err != nil {
		return nil, fmt.Errorf("%s: %w", what, err)
	}
	file := filepath.Join(a.dir, identity.RevokedFile)
	list, err := os.ReadFile(file)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	if block := encodeCert(cert.Raw); !bytes.Contains(list, block) {
		if err := replace(file, append(list, block...)); err != nil {
			return nil, err
		}
	}
	return cert, a.Share()
}

// find reads the certificate of a host, or of a file.
func (a *Authority) find(what string) (*x509.Certificate, error) {
	file := what
	if hostName.MatchString(what) {
		if named := filepath.Join(a.HostDir(what), identity.CertFile); exists(named) {
			file = named
		}
	}
	certs, err := readCerts(file)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%q is neither a host of this authority nor the file of a certificate: %w", what, err)
	}
	if err != nil {
		return nil, err
	}
	return certs[0], nil
}

// ours checks that this authority, or one before its rotation, has signed.
func (a *Authority) ours(cert *x509.Certificate) error {
	cas, err := readCerts(filepath.Join(a.dir, identity.CAFile))
	if err != nil {
		return err
	}
	for _, ca := range cas {
		if cert.CheckSignatureFrom(ca) == nil {
			return nil
		}
	}
	return errors.New("the certificate was not signed by this authority: no host accepts it anyway")
}

// Revoked tells whether a certificate is on the list.
func (a *Authority) Revoked(cert *x509.Certificate) bool {
	list, err := readCerts(filepath.Join(a.dir, identity.RevokedFile))
	if err != nil {
		return false
	}
	for _, c := range list {
		if c.Equal(cert) {
			return true
		}
	}
	return false
}

// Certificate is the newest one of a host.
func (a *Authority) Certificate(name string) (*x509.Certificate, error) {
	return HostCertificate(a.HostDir(name))
}

// HostCertificate is the one in a host's directory.
func HostCertificate(dir string) (*x509.Certificate, error) {
	certs, err := readCerts(filepath.Join(dir, identity.CertFile))
	if err != nil {
		return nil, err
	}
	return certs[0], nil
}

func exists(file string) bool {
	_, err := os.Stat(file)
	return err == nil
}
