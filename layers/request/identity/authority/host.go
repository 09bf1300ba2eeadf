// SPDX-License-Identifier: Apache-2.0

package authority

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"time"

	"github.com/io-mig/mig/layers/request/identity"
)

// hostName is a DNS name, which is also fit for a directory.
var hostName = regexp.MustCompile(`^[A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?$`)

// HostDir is where the files of a host are.
func (a *Authority) HostDir(name string) string { return filepath.Join(a.dir, hostsDir, name) }

// Host makes a key and a certificate for one host, which other hosts know by
// its name and the further names and addresses, and returns the certificate and
// the directory with all that the host needs. One that it had before stays
// valid until it runs out or is revoked.
func (a *Authority) Host(name string, names []string, valid time.Duration) (*x509.Certificate, string, error) {
	if !hostName.MatchString(name) {
		return nil, "", fmt.Errorf("%q is no name of a host (addresses come beside a name)", name)
	}
	t, err := template(name, valid)
	if err != nil {
		return nil, "", err
	}
	// A certificate that outlives its authority would only be found out later.
	if t.NotAfter.After(a.cert.NotAfter) {
		t.NotAfter = a.cert.NotAfter
	}
	if time.Now().After(a.cert.NotAfter) {
		return nil, "", fmt.Errorf("the authority's certificate ran out on %s (mig certs init --rotate makes a new one)", a.cert.NotAfter.Format(time.DateOnly))
	}
	t.KeyUsage = x509.KeyUsageDigitalSignature
	t.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}
	for _, n := range append([]string{name}, names...) {
		switch ip := net.ParseIP(n); {
		case ip != nil:
			t.IPAddresses = append(t.IPAddresses, ip)
		case len(n) <= 253 && hostName.MatchString(n):
			t.DNSNames = append(t.DNSNames, n)
		default:
			return nil, "", fmt.Errorf("%q is no name of a host and no IP address", n)
		}
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, "", err
	}
	der, err := x509.CreateCertificate(rand.Reader, t, a.cert, key.Public(), a.key)
	if err != nil {
		return nil, "", fmt.Errorf("sign the certificate of %s: %w", name, err)
	}
	if err := a.publish(name, der, key); err != nil {
		return nil, "", fmt.Errorf("certificate of %s: %w", name, err)
	}
	cert, err := x509.ParseCertificate(der)
	return cert, a.HostDir(name), err
}

func (a *Authority) publish(name string, der []byte, key *ecdsa.PrivateKey) error {
	dir := a.HostDir(name)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	encoded, err := encodeKey(key)
	if err != nil {
		return err
	}
	return errors.Join(
		replace(filepath.Join(dir, identity.KeyFile), encoded),
		replace(filepath.Join(dir, identity.CertFile), encodeCert(der)),
		a.share(dir),
	)
}

// share copies what every host has.
func (a *Authority) share(dir string) error {
	for _, file := range []string{identity.CAFile, identity.RevokedFile} {
		b, err := os.ReadFile(filepath.Join(a.dir, file))
		if errors.Is(err, fs.ErrNotExist) {
			continue // nothing was revoked
		}
		if err == nil {
			err = replace(filepath.Join(dir, file), b)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// Share copies the authority's certificates and the revocations into the
// directories of all hosts, from where they are carried to the hosts.
func (a *Authority) Share() error {
	hosts, err := a.Hosts()
	var errs []error
	for _, h := range hosts {
		errs = append(errs, a.share(a.HostDir(h)))
	}
	return errors.Join(append(errs, err)...)
}

// Hosts lists those that have a certificate.
func (a *Authority) Hosts() ([]string, error) {
	es, err := os.ReadDir(filepath.Join(a.dir, hostsDir))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	var names []string
	for _, e := range es {
		if e.IsDir() && hostName.MatchString(e.Name()) {
			names = append(names, e.Name())
		}
	}
	return names, err
}
